//! The row every stage passes on: a question, its reference answer, and whatever else the dataset knows of it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One dataset row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Stable name of the row within its dataset, such as `countdown-17`.
    pub id: String,
    /// What the model is asked.
    pub question: String,
    /// The reference answer that a verifier compares with.
    pub answer: String,
    /// The row's other columns (for countdown: `numbers` and `target`).
    #[serde(default)]
    pub info: Map<String, Value>,
}

/// A finite, ordered collection of examples. Reading row `index` twice gives the same example.
pub trait Dataset: Send + Sync {
    /// Number of examples.
    fn len(&self) -> usize;

    /// The example at `index`, which is below [`Dataset::len`].
    fn get(&self, index: usize) -> Example;

    /// Whether there is no example at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
