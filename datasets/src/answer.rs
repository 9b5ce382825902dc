//! The reference answer of an example: one text, or several of which any will do. What an answer means is left to
//! verifiers.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// A reference answer. It reads as a text: where there are several, as the JSON of their list.
///
/// ```
/// use reckon_datasets::Answer;
/// let answer = Answer::any_of(vec!["1/2".into(), "0.5".into()]);
/// assert_eq!(&*answer, r#"["1/2","0.5"]"#);
/// assert_eq!(answer.each().collect::<Vec<_>>(), ["1/2", "0.5"]);
/// assert_eq!(Answer::from("1/2").each().collect::<Vec<_>>(), ["1/2"]);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Answer {
    text: String,
    /// All right answers, where there are several.
    several: Vec<String>,
}

impl Answer {
    /// An answer that is any of `right`; none of an empty list.
    pub fn any_of(mut right: Vec<String>) -> Self {
        match right.len() {
            0 | 1 => Self { text: right.pop().unwrap_or_default(), several: Vec::new() },
            // A list of texts always can be written.
            _ => Self { text: serde_json::to_string(&right).unwrap_or_default(), several: right },
        }
    }

    /// The answer as a text; several as the JSON of their list.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Each right answer; one at least, which may be empty.
    pub fn each(&self) -> impl Iterator<Item = &str> {
        let one = self.several.is_empty().then_some(self.text.as_str());
        one.into_iter().chain(self.several.iter().map(String::as_str))
    }
}

/// An answer as JSON has it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    One(String),
    Several(Vec<String>),
}

impl From<Written> for Answer {
    fn from(written: Written) -> Self {
        match written {
            Written::One(text) => text.into(),
            Written::Several(right) => Self::any_of(right),
        }
    }
}

impl From<Answer> for Written {
    fn from(answer: Answer) -> Self {
        if answer.several.is_empty() { Self::One(answer.text) } else { Self::Several(answer.several) }
    }
}

impl Deref for Answer {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self { text, several: Vec::new() }
    }
}

impl From<&str> for Answer {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl PartialEq<str> for Answer {
    fn eq(&self, other: &str) -> bool {
        self.text == other
    }
}

impl PartialEq<&str> for Answer {
    fn eq(&self, other: &&str) -> bool {
        self.text == *other
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}
