//! The keys of `config.json` that not every family has, and what to say where one is not there.

use anyhow::{Context, Result};
use serde_json::{Map, Value};

/// The keys of a file.
pub(super) struct Keys<'a>(pub(super) &'a Map<String, Value>);

impl Keys<'_> {
    /// A whole number that must be there.
    pub(super) fn number(&self, key: &str) -> Result<usize> {
        self.optional(key)?.with_context(|| format!("{key} is missing"))
    }

    /// A whole number, where there is one.
    pub(super) fn optional(&self, key: &str) -> Result<Option<usize>> {
        let value = self.0.get(key).filter(|value| !value.is_null());
        let number = |value: &Value| value.as_u64().map(|n| n as usize);
        value.map(|value| number(value).with_context(|| format!("{key} = {value} is not a whole number"))).transpose()
    }

    /// True or false, where it says.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.0.get(key).and_then(Value::as_bool)
    }

    /// A number, where there is one.
    pub(super) fn decimal(&self, key: &str) -> Result<Option<f64>> {
        let value = self.0.get(key).filter(|value| !value.is_null());
        value.map(|value| value.as_f64().with_context(|| format!("{key} = {value} is not a number"))).transpose()
    }

    /// A text, where there is one.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str)
    }
}
