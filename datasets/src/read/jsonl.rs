//! Rows of a JSON Lines file. A syntax error names its line and column, both counted from 1, columns in characters.
//! Which column is which is left to `shape`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Row;
use crate::Error;

/// What is wrong in a line, and at which byte of it.
type Fault = (usize, String);

/// Gives `each` the rows of a file, line by line; blank lines are skipped.
pub(super) fn read(path: &Path, each: &mut dyn FnMut(Row) -> Result<(), Error>) -> Result<(), Error> {
    let io = |cause| Error::Io { path: path.into(), cause };
    let mut file = BufReader::new(File::open(path).map_err(io)?);
    let mut bytes = Vec::new();
    for line in 1usize.. {
        bytes.clear();
        if file.read_until(b'\n', &mut bytes).map_err(io)? == 0 {
            break;
        }
        let columns = read_line(&bytes, line).map_err(|(at, problem)| {
            let column = String::from_utf8_lossy(&bytes[..at.min(bytes.len())]).chars().count() + 1;
            Error::Row { path: path.into(), place: format!("line {line}, column {column}"), problem }
        })?;
        if let Some(columns) = columns {
            each(Row { columns, number: line, place: format!("line {line}") })?;
        }
    }
    Ok(())
}

/// A line's columns; none if the line is blank.
fn read_line(bytes: &[u8], line: usize) -> Result<Option<Map<String, Value>>, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|e| (e.valid_up_to(), "not UTF-8: save the file as UTF-8".into()))?;
    // Some editors put a byte-order mark in front of the file.
    let mark = if line == 1 && text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let text = text[mark..].trim_end();
    if text.trim().is_empty() {
        return Ok(None);
    }
    if !text.trim_start().starts_with('{') {
        let example = "a line is to be one JSON object, such as {\"question\": \"1+1\", \"answer\": 2}";
        return Err((mark, example.into()));
    }
    let fault = |e: serde_json::Error| (mark + e.column().saturating_sub(1), describe(&e));
    let raw: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(fault)?;
    let columns = raw.into_iter().map(|(name, raw)| Ok((name, value(raw.get())?)));
    columns.collect::<Result<_, _>>().map(Some).map_err(fault)
}

/// A column's value. A number that would be written in another way is kept as the text it is written with: `1.50` and
/// numbers of thirty digits are answers to compare with.
fn value(raw: &str) -> Result<Value, serde_json::Error> {
    let value: Value = serde_json::from_str(raw)?;
    match value {
        Value::Number(number) if number.to_string() != raw => Ok(Value::String(raw.to_owned())),
        value => Ok(value),
    }
}

/// serde_json's message without its own place, which knows nothing of the file.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(bytes: &[u8]) -> Result<Vec<Row>, Error> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut rows = Vec::new();
        read(file.path(), &mut |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }

    #[test]
    fn rows_know_their_line_whatever_stands_between_them() {
        let text = "\u{feff}{\"question\":\"1+1?\",\"level\":3}\r\n\n  \n{\"question\":\"ä\"}";
        let rows = rows(text.as_bytes()).unwrap();
        assert_eq!(rows.iter().map(|row| row.number).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(serde_json::to_string(&rows[0].columns).unwrap(), r#"{"level":3,"question":"1+1?"}"#);
        assert_eq!(rows[1].columns["question"], "ä");
    }

    #[test]
    fn numbers_keep_the_text_they_are_written_with() {
        for (written, expected) in [
            ("2", Value::from(2)),
            ("-1.50", "-1.50".into()),
            ("1e2 ", "1e2".into()),
            ("123456789012345678901234567890", "123456789012345678901234567890".into()),
            ("1, \"answer\" : 3", Value::from(3)),
            ("0.5", Value::from(0.5)),
        ] {
            let line = format!("{{\"question\":\"answer\",\"answer\":{written}}}");
            assert_eq!(rows(line.as_bytes()).unwrap()[0].columns["answer"], expected, "{line}");
        }
    }

    #[test]
    fn syntax_errors_name_line_and_column() {
        let table: [(&[u8], &str); 7] = [
            (b"{\"question\":\"a\",\"answer\":\"b\"}\n{\"question\" 1}", "line 2, column 13: expected `:`"),
            (b"{\"question\":\"a\"\n", "line 1, column 15: EOF while parsing an object"),
            (b"\n{} {}", "line 2, column 4: trailing characters"),
            (b"{\"question\":\"\xff\"}", "line 1, column 14: not UTF-8"),
            ("{\"question\":\"äöü\", \"answer\":nul}".as_bytes(), "line 1, column 32: expected ident"),
            (b"[1]", "line 1, column 1: a line is to be one JSON object"),
            (b"{\"a\":[1,}", "line 1, column 9: expected value"),
        ];
        for (bytes, expected) in table {
            let message = rows(bytes).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
