//! Values as Python spells them in text. JSON is left to [`json`](super::json).

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error};

/// Makes an environment spell values as Python does, where it prints them and where a filter takes them for text.
pub(super) fn spell_values(environment: &mut Environment) {
    environment.set_formatter(|out, state, value| match value.kind() {
        ValueKind::Undefined | ValueKind::String => minijinja::escape_formatter(out, state, value),
        _ => Ok(out.write_str(&text(value)?)?),
    });
    environment.add_filter("string", |value: &Value| text(value));
    environment.add_filter("upper", |value: &Value| Ok::<_, Error>(text(value)?.to_uppercase()));
    environment.add_filter("lower", |value: &Value| Ok::<_, Error>(text(value)?.to_lowercase()));
    environment.add_filter("join", join);
    // Nothing is no list without items.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
}

/// The items of a list, or one attribute of each, with `between` between them.
fn join(items: &Value, between: Option<&str>, options: Kwargs) -> Result<String, Error> {
    let between = between.or(options.get("d")?).unwrap_or_default().to_owned();
    let attribute: Option<String> = options.get("attribute")?;
    options.assert_all_used()?;
    let item = |item: Value| match &attribute {
        Some(name) => text(&item.get_attr(name)?),
        None => text(&item),
    };
    Ok(items.try_iter()?.map(item).collect::<Result<Vec<_>, Error>>()?.join(&between))
}

/// `str` of a value.
fn text(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    match value.kind() {
        ValueKind::String | ValueKind::Undefined => out.push_str(&value.to_string()),
        _ => literal(value, &mut out)?,
    }
    Ok(out)
}

/// `repr` of a number: the shortest digits that read back, with an exponent below 1e-4 and from 1e16 on.
pub(super) fn number(value: &Value) -> String {
    let number = match f64::try_from(value.clone()) {
        Ok(number) if !value.is_integer() => number,
        _ => return value.to_string(),
    };
    if number.is_nan() {
        return "nan".to_owned();
    }
    // Rust writes an exponent from the same powers on, without a sign and a second digit.
    let text = format!("{number:?}");
    match text.split_once('e') {
        Some((digits, power)) => {
            let (sign, power) = power.strip_prefix('-').map_or(('+', power), |power| ('-', power));
            format!("{}e{sign}{power:0>2}", digits.trim_end_matches(".0"))
        }
        None => text,
    }
}

/// `repr` of a value.
fn literal(value: &Value, out: &mut String) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::None | ValueKind::Undefined => out.push_str("None"),
        ValueKind::Number => out.push_str(&number(value)),
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
            c if c < ' ' || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(mark);
}
