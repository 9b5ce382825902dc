//! Rows from a JSON Lines file. Errors name file, line and column.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{Dataset, Error, Example};

/// Which columns hold what.
#[derive(Debug, Clone)]
pub struct Columns {
    /// Column of the question.
    pub question: String,
    /// Column of the reference answer.
    pub answer: String,
    /// Column of the id; rows are numbered without it.
    pub id: Option<String>,
}

impl Default for Columns {
    fn default() -> Self {
        Self { question: "question".into(), answer: "answer".into(), id: None }
    }
}

/// The rows of a file, in its order. Columns that are neither question, answer nor id go to `info`.
#[derive(Debug, Clone)]
pub struct JsonLines {
    examples: Vec<Example>,
}

impl JsonLines {
    /// Reads a file; blank lines are skipped.
    ///
    /// # Errors
    /// A file that cannot be read or has no rows; a line that is not a JSON object, not UTF-8, or lacks a column.
    pub fn open(path: &Path, columns: &Columns) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
        let mut examples = Vec::new();
        for (index, line) in bytes.split(|&b| b == b'\n').enumerate() {
            let at = |column: usize, problem: String| Error::Line { path: path.into(), line: index + 1, column, problem };
            let text = std::str::from_utf8(line).map_err(|e| at(e.valid_up_to() + 1, "not UTF-8".into()))?;
            if text.trim().is_empty() {
                continue;
            }
            let row: Map<String, Value> = serde_json::from_str(text).map_err(|e| at(e.column(), describe(&e)))?;
            let fallback = format!("{}-{}", path.file_stem().unwrap_or_default().to_string_lossy(), index + 1);
            examples.push(example(row, columns, fallback).map_err(|(name, problem)| {
                at(text.find(&format!("\"{name}\"")).map_or(1, |i| i + 1), problem)
            })?);
        }
        if examples.is_empty() { Err(Error::Empty(path.into())) } else { Ok(Self { examples }) }
    }
}

/// serde_json's message without its own line, which is always 1.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

/// A row's example, or the column at fault and why.
fn example(mut row: Map<String, Value>, columns: &Columns, fallback: String) -> Result<Example, (String, String)> {
    let mut take = |name: &str| match row.remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(other) => Err((name.to_owned(), format!("column \"{name}\" holds {other}, not a text or a number"))),
        None => {
            let found: Vec<&str> = row.keys().map(String::as_str).collect();
            Err((name.to_owned(), format!("no column \"{name}\"; the row has: {}", found.join(", "))))
        }
    };
    let question = take(&columns.question)?;
    let answer = take(&columns.answer)?;
    let id = columns.id.as_deref().map_or(Ok(fallback), &mut take)?;
    Ok(Example { id, question, answer, info: row })
}

impl Dataset for JsonLines {
    fn len(&self) -> usize {
        self.examples.len()
    }

    fn get(&self, index: usize) -> Example {
        self.examples[index].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(name: &str, bytes: &[u8]) -> Result<JsonLines, Error> {
        let path = std::env::temp_dir().join(format!("reckon-{}-{name}.jsonl", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let result = JsonLines::open(&path, &Columns::default());
        std::fs::remove_file(&path).unwrap();
        result
    }

    #[test]
    fn rows_keep_their_other_columns_and_numbers_become_text() {
        let rows = open("good", b"{\"question\":\"1+1?\",\"answer\":2,\"level\":3}\n\n").unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows.get(0).answer, "2");
        assert_eq!(rows.get(0).info["level"], 3);
    }

    #[test]
    fn errors_name_line_and_column() {
        let table: [(&str, &[u8], &str); 6] = [
            ("json", b"{\"question\":\"a\",\"answer\":\"b\"}\n{\"question\" 1}", "line 2, column 13: expected `:`"),
            ("missing", b"{\"question\":\"a\",\"result\":1}", "line 1, column 1: no column \"answer\"; the row has: result"),
            ("type", b"{\"question\":\"a\", \"answer\":[1]}", "line 1, column 18: column \"answer\" holds [1]"),
            ("utf8", b"{\"question\":\"\xff\"}", "line 1, column 14: not UTF-8"),
            ("object", b"[1]", "line 1, column"),
            ("empty", b"\n\n", "holds no example"),
        ];
        for (name, bytes, expected) in table {
            let message = open(name, bytes).unwrap_err().to_string();
            assert!(message.contains(expected), "{name}: {message}");
        }
    }
}
