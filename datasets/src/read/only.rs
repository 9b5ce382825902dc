//! Which rows of a dataset are kept, by what their columns hold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Example};

/// What a column of a row that is kept holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Wanted {
    /// One of these values, compared as text.
    OneOf(Vec<String>),
    /// A number from the first to the second, both included: `0.2..0.8`, `0.2..` or `..0.8`.
    Within(String),
}

impl Wanted {
    /// Keeps the examples whose `column` holds what is wanted.
    ///
    /// # Errors
    /// A range that cannot be read, and a wish that no row satisfies.
    pub(super) fn retain(&self, column: &str, examples: &mut Vec<Example>) -> Result<(), Error> {
        match self {
            Self::OneOf(values) => examples.retain(|example| match example.info.get(column) {
                Some(Value::String(text)) => values.contains(text),
                Some(other) => values.contains(&other.to_string()),
                None => false,
            }),
            Self::Within(text) => {
                let (low, high) = range(text).ok_or_else(|| {
                    let way_out = "neither a list of values nor a range of numbers such as \"0.2..0.8\"";
                    Error::Config(format!("only.{column} = {text:?} is {way_out}"))
                })?;
                let within = |value: f64| low <= value && value <= high;
                examples.retain(|example| example.info.get(column).and_then(number).is_some_and(within));
            }
        }
        if examples.is_empty() {
            let wanted = match self {
                Self::OneOf(values) => format!("is one of {}", values.join(", ")),
                Self::Within(range) => format!("is a number in {range}"),
            };
            return Err(Error::Config(format!("only: no row is left whose column {column:?} {wanted}")));
        }
        Ok(())
    }
}

/// Columns with what they are to hold.
pub type Only = BTreeMap<String, Wanted>;

/// A number, or a text that is one, as all values of a CSV file are.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// The ends of `low..high`; an end that is left out is open.
fn range(text: &str) -> Option<(f64, f64)> {
    let end = |text: &str, open: f64| if text.trim().is_empty() { Some(open) } else { text.trim().parse().ok() };
    let (low, high) = text.split_once("..")?;
    let (low, high) = (end(low, f64::NEG_INFINITY)?, end(high, f64::INFINITY)?);
    (low <= high).then_some((low, high))
}
