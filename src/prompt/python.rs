//! Values as Python spells them, in text and in JSON.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, Output, State};

/// Prints an expression's value: `True`, `False` and `None` where Jinja in Rust would not capitalise them.
pub(super) fn format(out: &mut Output, state: &State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Bool => Ok(out.write_str(if value.is_true() { "True" } else { "False" })?),
        ValueKind::None => Ok(out.write_str("None")?),
        ValueKind::Map | ValueKind::Seq => {
            let mut text = String::new();
            literal(value, &mut text)?;
            Ok(out.write_str(&text)?)
        }
        _ => minijinja::escape_formatter(out, state, value),
    }
}

/// `repr` of a value.
fn literal(value: &Value, out: &mut String) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::None | ValueKind::Undefined => out.push_str("None"),
        ValueKind::String => quote(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq => {
            out.push('[');
            for (i, item) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                literal(&item, out)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                literal(&key, out)?;
                out.push_str(": ");
                literal(&value.get_item(&key)?, out)?;
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

/// Single quotes, unless the text holds them and no double ones.
fn quote(text: &str, out: &mut String) {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == mark => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out.push(mark);
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`: keys in their order, a space after commas and colons.
pub(super) fn to_json(value: &Value, indent: Option<usize>) -> Result<String, Error> {
    let mut out = String::new();
    dump(value, indent, 0, &mut out)?;
    Ok(out)
}

fn dump(value: &Value, indent: Option<usize>, depth: usize, out: &mut String) -> Result<(), Error> {
    let kind = value.kind();
    let (open, close) = match kind {
        ValueKind::Seq | ValueKind::Iterable => ('[', ']'),
        ValueKind::Map => ('{', '}'),
        _ => {
            let bad = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
            out.push_str(&serde_json::to_string(value).map_err(bad)?);
            return Ok(());
        }
    };
    out.push(open);
    let mut filled = false;
    for item in value.try_iter()? {
        separate(filled, indent, depth + 1, out);
        filled = true;
        dump(&item, indent, depth + 1, out)?;
        if kind == ValueKind::Map {
            out.push_str(": ");
            dump(&value.get_item(&item)?, indent, depth + 1, out)?;
        }
    }
    if filled {
        new_line(indent, depth, out);
    }
    out.push(close);
    Ok(())
}

/// What stands before an item.
fn separate(follows: bool, indent: Option<usize>, depth: usize, out: &mut String) {
    match (follows, indent) {
        (true, None) => out.push_str(", "),
        (true, Some(_)) => out.push(','),
        (false, _) => {}
    }
    new_line(indent, depth, out);
}

fn new_line(indent: Option<usize>, depth: usize, out: &mut String) {
    if let Some(width) = indent {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', width * depth));
    }
}
