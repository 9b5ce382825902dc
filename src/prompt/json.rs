//! The filter `tojson` as transformers gives it to chat templates: `json.dumps` of Python with `ensure_ascii=False`, keys
//! in their order and nothing escaped for HTML.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::python::number;

/// How values are laid out.
struct Style {
    /// What one level is indented by; all stands on one line without.
    indent: Option<String>,
    /// Between items, and between a key and its value.
    separators: (String, String),
    sort_keys: bool,
    ensure_ascii: bool,
}

/// `json.dumps(value, ensure_ascii, indent, separators, sort_keys)`.
pub(super) fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent = match options.get::<Option<Value>>("indent")? {
        Some(text) if text.as_str().is_some() => text.as_str().map(str::to_owned),
        Some(width) if !width.is_none() => Some(" ".repeat(usize::try_from(width)?)),
        _ => None,
    };
    let separators = match options.get::<Option<Vec<String>>>("separators")?.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "tojson takes two separators")),
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let is_set = |name: &str| options.get::<Option<bool>>(name).map(Option::unwrap_or_default);
    let style = Style { indent, separators, sort_keys: is_set("sort_keys")?, ensure_ascii: is_set("ensure_ascii")? };
    options.assert_all_used()?;
    let mut out = String::new();
    style.dump(value, 0, &mut out)?;
    Ok(out)
}

impl Style {
    fn dump(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&self.number(value)),
            ValueKind::String => self.quote(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.enclose(['[', ']'], &items, depth, out, &|item, out| self.dump(item, depth + 1, out))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.enclose(['{', '}'], &keys, depth, out, &|key, out| {
                    self.key(key, out);
                    out.push_str(&self.separators.1);
                    self.dump(&value.get_item(key)?, depth + 1, out)
                })?;
            }
            kind => return Err(Error::new(ErrorKind::BadSerialization, format!("JSON has no {kind}"))),
        }
        Ok(())
    }

    /// Items between two brackets, each on a line of its own where lines are indented.
    fn enclose(
        &self,
        [open, close]: [char; 2],
        items: &[Value],
        depth: usize,
        out: &mut String,
        write: &dyn Fn(&Value, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(open);
        for (index, item) in items.iter().enumerate() {
            out.push_str(if index > 0 { &self.separators.0 } else { "" });
            self.new_line(depth + 1, out);
            write(item, out)?;
        }
        if !items.is_empty() {
            self.new_line(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn new_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    }

    /// A key is a text; numbers, truth values and `none` are spelt as one.
    fn key(&self, key: &Value, out: &mut String) {
        match key.kind() {
            ValueKind::String => self.quote(key.as_str().unwrap_or_default(), out),
            ValueKind::None => out.push_str("\"null\""),
            ValueKind::Bool => out.push_str(if key.is_true() { "\"true\"" } else { "\"false\"" }),
            _ => self.quote(&self.number(key), out),
        }
    }

    fn number(&self, value: &Value) -> String {
        match number(value).as_str() {
            "inf" => "Infinity".to_owned(),
            "-inf" => "-Infinity".to_owned(),
            "nan" => "NaN".to_owned(),
            digits => digits.to_owned(),
        }
    }

    fn quote(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && c > '~') => {
                    let mut units = [0; 2];
                    c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use reckon_datasets::Plain;

    use super::*;

    fn dumped(json: &str, options: &[(&str, Value)]) -> Result<String, Error> {
        let value = Value::from_serialize(Plain(&serde_json::from_str(json).unwrap()));
        to_json(&value, options.iter().cloned().collect())
    }

    /// What `json.dumps(value, **options)` of Python 3.12 gives.
    #[test]
    fn values_are_dumped_as_python_dumps_them() {
        let separators = || ("separators", Value::from(vec![",", ":"]));
        for (json, options, expected) in [
            (r#"{"b": [1, 2.0], "a": {}}"#, vec![], r#"{"b": [1, 2.0], "a": {}}"#),
            (r#"{"b": [1, 2.0], "a": {}}"#, vec![("sort_keys", true.into())], r#"{"a": {}, "b": [1, 2.0]}"#),
            (r#"{"b": [1, 2]}"#, vec![separators()], r#"{"b":[1,2]}"#),
            (r#"{"b": [1]}"#, vec![("indent", 2.into())], "{\n  \"b\": [\n    1\n  ]\n}"),
            (r#"[1, 2]"#, vec![("indent", "\t".into())], "[\n\t1,\n\t2\n]"),
            (r#"[1, 2]"#, vec![("indent", 0.into()), separators()], "[\n1,\n2\n]"),
            (r#"[1]"#, vec![("indent", Value::from(()))], "[1]"),
            (r#"["é<&>'", "\u007f\b\f\u0001\/"]"#, vec![], "[\"é<&>'\", \"\u{7f}\\b\\f\\u0001/\"]"),
            (r#"["é🙂"]"#, vec![("ensure_ascii", true.into())], r#"["\u00e9\ud83d\ude42"]"#),
            (
                "[1e-5, 0.0001, 1e16, 1e15, 1.5e300, -0.0]",
                vec![],
                "[1e-05, 0.0001, 1e+16, 1000000000000000.0, 1.5e+300, -0.0]",
            ),
            ("[true, null, 12345678901234567890]", vec![], "[true, null, 12345678901234567890]"),
        ] {
            assert_eq!(dumped(json, &options).unwrap(), expected, "{options:?}");
        }
        for options in [vec![("indents", Value::from(2))], vec![("separators", Value::from(vec![","]))]] {
            assert!(dumped("[1]", &options).is_err(), "{options:?}");
        }
    }
}
