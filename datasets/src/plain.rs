//! JSON values for formats that are not JSON, such as TOML and templates. serde_json keeps a number as the digits that it
//! was written with, which no other format can read: to those a number is handed over as one.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Number, Value};

/// A JSON value that any format can write: integers of up to 128 bits as they are, decimals as the nearest double, and
/// longer integers as the text of their digits.
#[derive(Debug)]
pub struct Plain<'a>(pub &'a Value);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::String(text) => serializer.serialize_str(text),
            Value::Number(value) => number(value, serializer),
            Value::Array(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(&Plain(item)))?;
                list.end()
            }
            Value::Object(object) => plain_map(object, serializer),
        }
    }
}

/// Writes an object as [`Plain`] would: for serde's `serialize_with`.
pub fn plain_map<'a, S: Serializer>(
    object: impl IntoIterator<Item = (&'a String, &'a Value)>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    object.into_iter().try_for_each(|(key, value)| map.serialize_entry(key, &Plain(value)))?;
    map.end()
}

fn number<S: Serializer>(value: &Number, serializer: S) -> Result<S::Ok, S::Error> {
    match (value.as_i64(), value.as_i128(), value.as_u128()) {
        (Some(value), ..) => serializer.serialize_i64(value),
        (_, Some(value), _) => serializer.serialize_i128(value),
        (_, _, Some(value)) => serializer.serialize_u128(value),
        _ => match value.as_f64().filter(|_| value.is_f64()) {
            Some(value) => serializer.serialize_f64(value),
            None => serializer.serialize_str(value.as_str()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_formats_get_numbers_as_numbers() {
        let text = r#"{"z":[1,-2,1.50,1e3,18446744073709551616],"a":{"t":true,"n":"1.50"}}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        let expected = r#"{"z":[1,-2,1.5,1000.0,18446744073709551616],"a":{"t":true,"n":"1.50"}}"#;
        assert_eq!(serde_json::to_string(&Plain(&value)).unwrap(), expected);
        let long = Value::Number(Number::from_string_unchecked("9".repeat(50)));
        assert_eq!(serde_json::to_string(&Plain(&long)).unwrap(), format!("\"{}\"", "9".repeat(50)));
    }
}
