//! The row every stage passes on: a question, its reference answer, and whatever else the dataset knows of it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Answer, Counted};

/// One dataset row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Stable name of the row within its dataset, such as `countdown-17`.
    pub id: String,
    /// What the model is asked.
    pub question: String,
    /// The reference answer that a verifier compares with.
    pub answer: Answer,
    /// The conversation that the completion goes on from, where the row holds one: messages of `role` and `content`, the
    /// question among them. Where the question is a text, a system line that the config adds at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Value>,
    /// All columns of the row as the file has them, for countdown also `numbers` and `target`. Of a generated example,
    /// what else is known of it.
    #[serde(default)]
    pub info: Map<String, Value>,
}

/// A finite, ordered collection of examples. Reading row `index` twice gives the same example.
pub trait Dataset: Send + Sync {
    /// Number of examples.
    fn len(&self) -> usize;

    /// The example at `index`, which is below [`Dataset::len`].
    fn get(&self, index: usize) -> Example;

    /// Stands for the first `rows` rows: another number means other rows.
    fn fingerprint_of(&self, rows: usize) -> u64 {
        (0..rows.min(self.len())).fold(0, |fingerprint, index| {
            // An example is made of texts and JSON, which always can be written.
            let text = serde_json::to_vec(&self.get(index)).unwrap_or_default();
            let words = text.chunks(8).map(|bytes| bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)));
            Counted::new(&std::iter::once(fingerprint).chain(words).collect::<Vec<_>>()).next_u64()
        })
    }

    /// Stands for all rows, so that a resumed run can refuse data that changed; an endless source stands for itself by
    /// its first ones.
    fn fingerprint(&self) -> u64 {
        self.fingerprint_of(self.len())
    }

    /// Whether there is no example at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
