//! JSON as strictly as RFC 8259 allows: no `NaN`, no key twice, nothing behind the value, and bounded nesting. Serde's
//! own reader takes the last of two equal keys, which lets an answer show one value and be judged by another.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The key under which serde_json hands over a number that is no integer of 64 bits, as its digits: it keeps those.
const DIGITS: &str = "$serde_json::private::Number";

/// The one JSON value that `text` is, at most `max_depth` lists and objects deep; or what is wrong with it.
pub(crate) fn parse_strict(text: &str, max_depth: usize) -> Result<Value, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Strict { depth: max_depth }.deserialize(&mut deserializer).map_err(|error| error.to_string())?;
    deserializer.end().map_err(|error| error.to_string())?;
    Ok(value)
}

/// What `text` holds between its only pair of code fences, or all of it where there are none. More than one block
/// would leave open which of them is meant.
pub(crate) fn unfenced(text: &str) -> Result<&str, &'static str> {
    let Some((_, rest)) = text.split_once("```") else { return Ok(text.trim()) };
    let (block, after) = rest.split_once("```").ok_or("a code block is not closed")?;
    if after.contains("```") {
        return Err("there is more than one code block");
    }
    // The first line names a language or nothing.
    let (language, body) = block.split_once('\n').unwrap_or(("", block));
    let named = language.trim().chars().all(|c| c.is_ascii_alphanumeric());
    Ok(if named { body } else { block }.trim())
}

/// Reads a value with `depth` levels of nesting left.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("lists and objects are nested too deep"))?;
        Ok(Self { depth })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let (inner, mut values) = (self.deeper()?, Vec::new());
        while let Some(value) = list.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let (inner, mut values) = (self.deeper()?, Map::new());
        while let Some(key) = object.next_key::<String>()? {
            if key == DIGITS && values.is_empty() {
                let digits: String = object.next_value()?;
                return self.visit_f64(digits.parse().map_err(A::Error::custom)?);
            }
            if values.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {key:?} stands twice")));
            }
            values.insert(key, object.next_value_seed(inner)?);
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_unambiguous_value_is_read() {
        for good in ["{}", " [1, -2.5e3, \"a\\u00e9\", null, true] ", "\"x\"", "0", r#"{"a": {"b": [[]]}}"#] {
            assert!(parse_strict(good, 4).is_ok(), "{good}");
        }
        for bad in [
            "",
            "{",
            "{} {}",
            "[1,]",
            "{'a': 1}",
            "NaN",
            "[Infinity]",
            "1e999",
            "01",
            "+1",
            "// c\n1",
            r#"{"a": 1, "a": 1}"#,
            r#"{"a": 1, "\u0061": 2}"#,
            "[[[[[1]]]]]",
            "\"\t\"",
            "True",
        ] {
            assert!(parse_strict(bad, 4).is_err(), "{bad}");
        }
        assert!(parse_strict(&"[".repeat(1_000_000), 100_000).is_err());
    }

    #[test]
    fn a_fence_is_taken_off_and_two_are_refused() {
        for (text, expected) in [
            (" {} ", Ok("{}")),
            ("```json\n{}\n```", Ok("{}")),
            ("Here:\n```\n{}\n```\nDone.", Ok("{}")),
            ("```{}```", Ok("{}")),
            ("```{\n}```", Ok("{\n}")),
            ("```json\n{}", Err("a code block is not closed")),
            ("```\n1\n```\n```\n2\n```", Err("there is more than one code block")),
        ] {
            assert_eq!(unfenced(text), expected, "{text}");
        }
    }
}
