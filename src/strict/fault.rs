//! What serde finds wrong with a document, as a sentence that names the key, where it was written, and what would do.

use std::fmt::{self, Display};

use serde::de::{self, Expected, Unexpected};

use super::nearest;
use super::tree::{Origin, Tree, Value};

/// What serde found wrong, with the keys from the inside out.
#[derive(Debug)]
pub(super) struct Fault {
    path: Vec<String>,
    problem: Problem,
}

#[derive(Debug)]
pub(super) enum Problem {
    UnknownKey { key: String, known: &'static [&'static str] },
    UnknownVariant { name: String, known: &'static [&'static str] },
    MissingKey(&'static str),
    Unfit { found: String, wanted: String },
    Other(String),
}

impl Problem {
    pub(super) fn fault(self) -> Fault {
        Fault { path: Vec::new(), problem: self }
    }
}

impl Fault {
    pub(super) fn under(mut self, key: &str) -> Self {
        self.path.push(key.to_owned());
        self
    }

    /// The sentence for the user; `tree` tells where the faulty key was written.
    pub(super) fn explain(mut self, tree: &Tree, source: &str) -> String {
        self.path.reverse();
        let path = complete(self.path, &self.problem, tree);
        let (key, place) = (path.join("."), origin_of(tree, &path).describe(source));
        let subject = if key.is_empty() { place } else { format!("{key:?} in {place}") };
        match self.problem {
            Problem::UnknownKey { key, known } => format!("unknown key {subject}: {}", suggest(&key, known, "keys")),
            Problem::UnknownVariant { name, known } => {
                format!("unknown value {name:?} for {subject}: {}", suggest(&name, known, "values"))
            }
            Problem::MissingKey(_) => format!("missing key {subject}: add it, or pass --set {key}=..."),
            Problem::Unfit { found, wanted } => format!("wrong value for {subject}: {found} where {wanted} is wanted"),
            Problem::Other(message) => format!("wrong value for {subject}: {message}"),
        }
    }
}

/// Extends the path that serde walked by the key at fault.
///
/// Inside tagged enums serde reads from a copy without keys, so the path may end early; the document is searched then.
fn complete(path: Vec<String>, problem: &Problem, tree: &Tree) -> Vec<String> {
    let node = path.iter().try_fold(tree, |node, key| node.child(key));
    let rest = match problem {
        Problem::UnknownKey { key, .. } => {
            Some(node.and_then(|node| node.search(&|name, _| name == key)).unwrap_or_else(|| vec![key.clone()]))
        }
        Problem::MissingKey(key) => Some(vec![(*key).to_owned()]),
        Problem::UnknownVariant { name, .. } => {
            node.and_then(|node| node.search(&|_, child| matches!(&child.value, Value::Text(text) if text == name)))
        }
        Problem::Unfit { found: value, .. } => node
            .filter(|node| found(node.unexpected()) != *value)
            .and_then(|node| node.search(&|_, child| found(child.unexpected()) == *value)),
        Problem::Other(_) => None,
    };
    [path, rest.unwrap_or_default()].concat()
}

/// Where the last node on `path` that exists was written.
fn origin_of<'a>(tree: &'a Tree, path: &[String]) -> &'a Origin {
    let mut node = tree;
    for key in path {
        match node.child(key) {
            Some(child) => node = child,
            None => break,
        }
    }
    &node.origin
}

fn suggest(word: &str, known: &[&str], what: &str) -> String {
    match nearest(word, known.iter().copied()) {
        Some(candidate) => format!("did you mean {candidate:?}?"),
        None if known.is_empty() => format!("there are no {what} here"),
        None => format!("the known {what} are {}", known.join(", ")),
    }
}

/// serde's name of a Rust type in words that a person who writes TOML uses.
fn in_words(expected: &dyn Expected) -> String {
    let name = expected.to_string();
    match name.as_str() {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number of at least 0".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a nonzero usize" | "a nonzero u32" | "a nonzero u64" => "a whole number of at least 1".to_owned(),
        "a sequence" => "an array".to_owned(),
        "a map" => "a table".to_owned(),
        _ => match name.strip_prefix("struct ") {
            Some(_) => "a table".to_owned(),
            None => name,
        },
    }
}

pub(super) fn found(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Bool(value) => format!("{value}"),
        Unexpected::Signed(value) => format!("{value}"),
        Unexpected::Unsigned(value) => format!("{value}"),
        Unexpected::Float(value) => format!("{value:?}"),
        Unexpected::Str(value) => format!("the string {value:?}"),
        Unexpected::Seq => "an array".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.problem)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Problem::Other(message.to_string()).fault()
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Problem::Unfit { found: found(unexpected), wanted: in_words(expected) }.fault()
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Problem::UnknownKey { key: field.to_owned(), known: expected }.fault()
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Problem::UnknownVariant { name: variant.to_owned(), known: expected }.fault()
    }

    fn missing_field(field: &'static str) -> Self {
        Problem::MissingKey(field).fault()
    }
}
