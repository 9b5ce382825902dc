//! The metadata of a GGUF file by type, each complaint with its key. What the keys mean is left to the files beside it.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use candle_core::quantized::gguf_file::Value;

/// The metadata of a file whose header [`super::header`] has walked.
#[derive(Debug)]
pub(super) struct Metadata(pub(super) HashMap<String, Value>);

impl Metadata {
    /// A text, where there is one.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        self.read(key, "a text", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A whole number from 0 on, where there is one; of 32 bits, so that the product of two has a meaning.
    pub(super) fn count(&self, key: &str) -> Result<Option<usize>> {
        self.read(key, "a whole number of 32 bits", |value| Some(u32::try_from(whole(value)?).ok()? as usize))
    }

    /// A whole number that has to be there.
    pub(super) fn required(&self, key: &str) -> Result<usize> {
        self.count(key)?.with_context(|| format!("metadata {key} is missing"))
    }

    /// A number, where there is one.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.read(key, "a number", |value| match value {
            // By its shortest digits: 1e-5, where the fp32 number is 0.00000999999974.
            Value::F32(number) => number.to_string().parse().ok(),
            Value::F64(number) => Some(*number),
            _ => whole(value).map(|number| number as f64),
        })
    }

    /// A truth value, where there is one.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.read(key, "true or false", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// A list of texts, where there is one.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        self.list(key, "a list of texts", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A list of whole numbers, where there is one.
    pub(super) fn counts(&self, key: &str) -> Result<Option<Vec<i64>>> {
        self.list(key, "a list of whole numbers", whole)
    }

    /// A list of truth values, where there is one.
    pub(super) fn flags(&self, key: &str) -> Result<Option<Vec<bool>>> {
        self.list(key, "a list of truth values", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// A list of numbers, where there is one.
    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.list(key, "a list of numbers", |value| match value {
            Value::F32(number) => Some(*number),
            _ => None,
        })
    }

    /// The id of a token, where there is one, which is one of `tokens`.
    pub(super) fn token(&self, key: &str, tokens: usize) -> Result<Option<u32>> {
        let Some(id) = self.count(key)? else { return Ok(None) };
        ensure!(id < tokens, "metadata {key} is {id}, but there are {tokens} tokens");
        Ok(Some(u32::try_from(id)?))
    }

    fn list<'a, T>(&'a self, key: &str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<Vec<T>>> {
        self.read(key, kind, |value| match value {
            Value::Array(values) => values.iter().map(&read).collect(),
            _ => None,
        })
    }

    fn read<'a, T>(&'a self, key: &str, kind: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        read(value).map(Some).with_context(|| format!("metadata {key} is not {kind}"))
    }
}

/// A value as a whole number, whatever its width.
fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::U8(number) => Some((*number).into()),
        Value::I8(number) => Some((*number).into()),
        Value::U16(number) => Some((*number).into()),
        Value::I16(number) => Some((*number).into()),
        Value::U32(number) => Some((*number).into()),
        Value::I32(number) => Some((*number).into()),
        Value::U64(number) => i64::try_from(*number).ok(),
        Value::I64(number) => Some(*number),
        _ => None,
    }
}
