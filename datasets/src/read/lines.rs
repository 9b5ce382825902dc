//! Rows of a JSON file: an object in each line, or one value for the whole file, which is a list of rows, an object
//! that holds such a list, or an object of columns. A syntax error names its line and column, both counted from 1,
//! columns in characters. Which column is which is left to `shape`.

use std::io::BufRead;
use std::path::Path;

use serde_json::{Map, Value};

use super::json::{self, Fault};
use super::source::{Text, has_ending, unpacked};
use super::{Each, Row};
use crate::Error;

/// What an object may call the list of rows that it holds.
const LISTS: [&str; 6] = ["data", "rows", "examples", "instances", "items", "questions"];

/// Gives `each` the rows of a file in order; blank lines are skipped.
pub(super) fn read(path: &Path, text: Text, each: Each) -> Result<(), Error> {
    let mut lines = Lines { path, text, bytes: Vec::new(), number: 0 };
    if !lines.advance()? {
        return Ok(());
    }
    if lines.is_document()? {
        return lines.document(each);
    }
    loop {
        let row = lines.row()?;
        each(row)?;
        if !lines.advance()? {
            return Ok(());
        }
    }
}

/// A file, and the line of it that is being read.
struct Lines<'a> {
    path: &'a Path,
    text: Text,
    bytes: Vec<u8>,
    number: usize,
}

impl Lines<'_> {
    /// Goes to the next line that is not blank; none is left at the end of the file.
    fn advance(&mut self) -> Result<bool, Error> {
        loop {
            self.bytes.clear();
            let io = |cause| Error::Io { path: self.path.into(), cause };
            if self.text.read_until(b'\n', &mut self.bytes).map_err(io)? == 0 {
                return Ok(false);
            }
            self.number += 1;
            // Some editors put a byte-order mark in front of the file: white space stands for it.
            if self.number == 1 && self.bytes.starts_with("\u{feff}".as_bytes()) {
                self.bytes[..3].fill(b' ');
            }
            if !self.bytes.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    /// Whether the file is one value, which the line begins: a list, an object that goes on behind the line, or one
    /// that is all there is in a file that is not called JSON Lines.
    fn is_document(&mut self) -> Result<bool, Error> {
        let text = String::from_utf8_lossy(&self.bytes);
        if text.trim_start().starts_with('[') {
            return Ok(true);
        }
        match json::value(text.trim_end(), 0) {
            Err(fault) => Ok(fault.at == text.trim_end().len()),
            Ok(_) if ["jsonl", "ndjson"].iter().any(|ending| has_ending(&unpacked(self.path), ending)) => Ok(false),
            Ok(_) => {
                let rest = self.text.fill_buf().map_err(|cause| Error::Io { path: self.path.into(), cause })?;
                Ok(rest.trim_ascii().is_empty())
            }
        }
    }

    /// The row that the line holds.
    fn row(&self) -> Result<Row, Error> {
        let text = self.utf8()?;
        let (value, end) = json::value(text, 0).map_err(|fault| self.fault(fault))?;
        let rest = text[end..].trim_start();
        if !rest.is_empty() {
            let problem = "more follows the object: a line is to be one".into();
            return Err(self.fault(Fault { at: text.len() - rest.len(), problem }));
        }
        let place = format!("line {}", self.number);
        let columns = columns(value).map_err(|problem| Error::row(self.path, &place, problem))?;
        Ok(Row { columns, number: self.number, place })
    }

    /// The rows of a file that is one value, or several that need no lines.
    fn document(&mut self, each: Each) -> Result<(), Error> {
        self.text.read_to_end(&mut self.bytes).map_err(|cause| Error::Io { path: self.path.into(), cause })?;
        let text = self.utf8()?;
        let (mut values, mut at) = (Vec::new(), 0);
        while !text[at..].trim_start().is_empty() {
            let (value, end) = json::value(text, at).map_err(|fault| self.fault(fault))?;
            values.push(value);
            at = end;
        }
        let rows = if values.len() == 1 { values.into_iter().flat_map(rows).collect() } else { values };
        for (index, row) in rows.into_iter().enumerate() {
            let (number, place) = (index + 1, format!("row {}", index + 1));
            let columns = columns(row).map_err(|problem| Error::row(self.path, &place, problem))?;
            each(Row { columns, number, place })?;
        }
        Ok(())
    }

    fn utf8(&self) -> Result<&str, Error> {
        let problem = |at| Fault { at, problem: "not UTF-8: save the file as UTF-8".into() };
        std::str::from_utf8(&self.bytes).map_err(|error| self.fault(problem(error.valid_up_to())))
    }

    /// An error at a byte of what has been read, whose first line is line [`Lines::number`].
    fn fault(&self, fault: Fault) -> Error {
        let before = &self.bytes[..fault.at.min(self.bytes.len())];
        let start = before.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let line = self.number + before.iter().filter(|&&b| b == b'\n').count();
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        Error::row(self.path, &format!("line {line}, column {column}"), fault.problem)
    }
}

/// The columns of a row.
fn columns(value: Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(columns) => Ok(columns),
        other => {
            let start: String = other.to_string().chars().take(40).collect();
            Err(format!("{start} is no row: one is an object such as {{\"question\": \"1+1\", \"answer\": 2}}"))
        }
    }
}

/// The rows that the value of a whole file holds; an object of other kinds is a row by itself.
fn rows(value: Value) -> Vec<Value> {
    match value {
        Value::Array(rows) => rows,
        Value::Object(mut columns) => {
            let list = LISTS.iter().find(|name| {
                columns.get(**name).and_then(Value::as_array).is_some_and(|rows| rows.iter().all(Value::is_object))
            });
            match list.and_then(|name| columns.shift_remove(*name)) {
                Some(Value::Array(rows)) => rows,
                _ => by_column(&columns).unwrap_or_else(|| vec![Value::Object(columns)]),
            }
        }
        other => vec![other],
    }
}

/// The rows of an object whose columns are lists of one length, or objects with the same keys, as pandas writes them.
fn by_column(columns: &Map<String, Value>) -> Option<Vec<Value>> {
    let cells = |column: &Value| match column {
        Value::Array(cells) => Some((Vec::new(), cells.clone())),
        Value::Object(cells) => Some((cells.keys().cloned().collect(), cells.values().cloned().collect())),
        _ => None,
    };
    let columns = columns.iter().map(|(name, column)| Some((name, cells(column)?))).collect::<Option<Vec<_>>>()?;
    let (_, (keys, first)) = columns.first()?;
    let alike = columns.iter().all(|(_, (other, cells))| other == keys && cells.len() == first.len());
    let row = |at: usize| -> Map<String, Value> {
        columns.iter().map(|(name, (_, cells))| ((*name).clone(), cells[at].clone())).collect()
    };
    alike.then(|| (0..first.len()).map(|at| Value::Object(row(at))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(name: &str, bytes: &[u8]) -> Result<Vec<Row>, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let mut rows = Vec::new();
        crate::read::read_rows(&path, &mut |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }

    fn written(rows: Vec<Row>) -> String {
        rows.into_iter().map(|row| Value::Object(row.columns).to_string()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn rows_know_their_line_whatever_stands_between_them() {
        let text = "\u{feff}{\"question\":\"1+1?\",\"level\":3}\r\n\n  \n{\"question\":\"ä\"}";
        let rows = rows("a.jsonl", text.as_bytes()).unwrap();
        assert_eq!(rows.iter().map(|row| row.number).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(written(rows), "{\"question\":\"1+1?\",\"level\":3}\n{\"question\":\"ä\"}");
    }

    #[test]
    fn a_file_that_is_one_value_holds_rows_in_any_of_the_ways_people_write_them() {
        let two = "{\"q\":1.50,\"a\":[1]}\n{\"q\":2,\"a\":[2]}";
        for text in [
            "[{\"q\":1.50,\"a\":[1]},{\"q\":2,\"a\":[2]}]",
            "\u{feff}\n[\r\n  {\"q\": 1.50, \"a\": [1]},\r\n  {\"q\": 2, \"a\": [2]}\r\n]\r\n",
            "{\"version\": 2, \"data\": [{\"q\":1.50,\"a\":[1]},{\"q\":2,\"a\":[2]}]}",
            "{\"q\": [1.50, 2], \"a\": [[1], [2]]}",
            "{\n\"q\": {\"0\": 1.50, \"1\": 2}, \"a\": {\"0\": [1], \"1\": [2]}}",
            "{\n \"q\": 1.50,\n \"a\": [1]\n}\n{\n \"q\": 2,\n \"a\": [2]\n}\n",
            two,
        ] {
            assert_eq!(written(rows("a.json", text.as_bytes()).unwrap()), two, "{text}");
        }
        for (name, text) in
            [("a.json", "{\"q\":\"x\",\"m\":[{}]}"), ("a.jsonl", "{\"q\":[1],\"m\":[{}]}"), ("a.json", "[]")]
        {
            assert_eq!(written(rows(name, text.as_bytes()).unwrap()), text.trim_matches(['[', ']']), "{text}");
        }
    }

    #[test]
    fn syntax_errors_name_line_and_column() {
        let table: [(&[u8], &str); 10] = [
            (b"{\"question\":\"a\",\"answer\":\"b\"}\n{\"question\" 1}", "line 2, column 13: expected `:`"),
            (b"{\"question\":\"a\"\n", "line 2, column 1: expected `,` or `}`"),
            (b"{\"question\":\"a\"\n{\"question\":\"b\"}\n", "line 2, column 1: expected `,` or `}`"),
            (b"\n{\"a\":1}\n{} {}", "line 3, column 4: more follows the object"),
            (b"{\"question\":\"\xff\"}", "line 1, column 14: not UTF-8"),
            ("{\"question\":\"äöü\", \"answer\":nul}".as_bytes(), "line 1, column 29: nul is no value"),
            (b"{\"a\":1}\n[1]", "line 2: [1] is no row"),
            (b"[1]", "row 1: 1 is no row"),
            (b"[{\"a\":1},\n {\"a\":}]", "line 2, column 7: expected a value"),
            (b"{\"a\":[1,}", "line 1, column 9: expected a value"),
        ];
        for (bytes, expected) in table {
            let message = rows("a.jsonl", bytes).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
