//! Rows from a JSON Lines file. Errors name file, line and column, both counted from 1, columns in characters.
//! Which column is which is given; what the text means is for others to know.

use std::fs::File;
use std::io::{BufRead, BufReader};
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

/// What is wrong in a line, and at which byte of it.
type Fault = (usize, String);

impl JsonLines {
    /// Reads a file line by line; blank lines are skipped.
    ///
    /// # Errors
    /// A file that cannot be read or has no rows; a line that is not a JSON object, not UTF-8, or lacks a column.
    pub fn open(path: &Path, columns: &Columns) -> Result<Self, Error> {
        let io = |source| Error::Io { path: path.into(), source };
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let mut file = BufReader::new(File::open(path).map_err(io)?);
        let (mut examples, mut bytes) = (Vec::new(), Vec::new());
        for line in 1.. {
            bytes.clear();
            if file.read_until(b'\n', &mut bytes).map_err(io)? == 0 {
                break;
            }
            let row = read_line(&bytes, line, columns, &stem).map_err(|(at, problem)| {
                let column = String::from_utf8_lossy(&bytes[..at.min(bytes.len())]).chars().count() + 1;
                Error::Line { path: path.into(), line, column, problem }
            })?;
            examples.extend(row);
        }
        if examples.is_empty() { Err(Error::Empty(path.into())) } else { Ok(Self { examples }) }
    }
}

/// A line's example; none if the line is blank.
fn read_line(bytes: &[u8], line: usize, columns: &Columns, stem: &str) -> Result<Option<Example>, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|e| (e.valid_up_to(), "not UTF-8: save the file as UTF-8".into()))?;
    // Some editors put a byte-order mark in front of the file.
    let mark = if line == 1 && text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    if text[mark..].trim().is_empty() {
        return Ok(None);
    }
    let value: Value = serde_json::from_str(text[mark..].trim_end())
        .map_err(|e| (mark + e.column().saturating_sub(1), describe(&e)))?;
    let Value::Object(row) = value else {
        return Err((mark, "a line is to be one JSON object, such as {\"question\": \"1+1\", \"answer\": 2}".into()));
    };
    Row { text, row }.example(columns, format!("{stem}-{line}")).map(Some)
}

/// serde_json's message without its own place, which knows nothing of the file.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

/// A line and what it holds.
struct Row<'a> {
    text: &'a str,
    row: Map<String, Value>,
}

impl Row<'_> {
    fn example(mut self, columns: &Columns, fallback: String) -> Result<Example, Fault> {
        let question = self.take_text(&columns.question, false)?;
        let answer = self.take_text(&columns.answer, true)?;
        let id = columns.id.as_deref().map_or(Ok(fallback), |name| self.take_text(name, true))?;
        for name in [Some(&columns.question), Some(&columns.answer), columns.id.as_ref()].into_iter().flatten() {
            self.row.remove(name);
        }
        Ok(Example { id, question, answer, info: self.row })
    }

    /// The text of a column, or of a number in it exactly as it is written.
    fn take_text(&self, name: &str, numbers: bool) -> Result<String, Fault> {
        let place = locate(self.text, name);
        match self.row.get(name) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Number(number)) if numbers => {
                Ok(place.map_or_else(|| number.to_string(), |(_, value)| number_at(&self.text[value..]).to_owned()))
            }
            Some(other) => {
                let wanted = if numbers { "a text or a number" } else { "a text" };
                let shown: String = other.to_string().chars().take(60).collect();
                Err((place.map_or(0, |(key, _)| key), format!("column \"{name}\" holds {shown}, not {wanted}")))
            }
            None => {
                let found: Vec<&str> = self.row.keys().map(String::as_str).collect();
                Err((0, format!("no column \"{name}\"; the row has: {}", found.join(", "))))
            }
        }
    }
}

/// Where the last outer key `name` of an object stands (the one that counts), and where its value starts.
/// `text` has been read as JSON before, so that brackets match and texts end.
fn locate(text: &str, name: &str) -> Option<(usize, usize)> {
    let (mut depth, mut at, mut found) = (0usize, 0, None);
    while let Some(&byte) = text.as_bytes().get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let end = at + text_length(&text.as_bytes()[at..]);
                let after = text[end..].trim_start();
                let key = after.strip_prefix(':').filter(|_| depth == 1);
                let named = || serde_json::from_str::<String>(&text[at..end]).is_ok_and(|key| key == name);
                if let Some(value) = key.filter(|_| named()) {
                    found = Some((at, text.len() - value.trim_start().len()));
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Bytes from one quotation mark to the next that closes it, both included.
fn text_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// The number that a text starts with.
fn number_at(text: &str) -> &str {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))).next().unwrap_or(text)
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

    fn open(name: &str, bytes: &[u8], columns: &Columns) -> Result<JsonLines, Error> {
        let path = std::env::temp_dir().join(format!("reckon-{}-{name}.jsonl", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let result = JsonLines::open(&path, columns);
        std::fs::remove_file(&path).unwrap();
        result
    }

    #[test]
    fn rows_keep_their_other_columns_and_their_place_as_id() {
        let text =
            "\u{feff}{\"question\":\"1+1?\",\"answer\":2,\"level\":3}\r\n\n  \n{\"answer\":\"b\",\"question\":\"ä\"}";
        let rows = open("good", text.as_bytes(), &Columns::default()).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows.get(0).question.as_str(), rows.get(0).answer.as_str()), ("1+1?", "2"));
        assert_eq!(serde_json::to_string(&rows.get(0).info).unwrap(), r#"{"level":3}"#);
        assert_eq!(rows.get(1).question, "ä");
        assert!(rows.get(0).id.ends_with("good-1") && rows.get(1).id.ends_with("good-4"));
    }

    #[test]
    fn columns_can_have_other_names_and_hold_the_id() {
        let columns = Columns { question: "q".into(), answer: "a".into(), id: Some("n".into()) };
        let rows = open("named", br#"{"q":"x","a":"y","n":7,"question":"kept"}"#, &columns).unwrap();
        let expected = (String::from("7"), String::from("x"), String::from("y"));
        let Example { id, question, answer, info } = rows.get(0);
        assert_eq!((id, question, answer), expected);
        assert_eq!(info["question"], "kept");
    }

    #[test]
    fn numbers_keep_the_text_they_are_written_with() {
        for (written, expected) in [
            ("2", "2"),
            ("-1.50", "-1.50"),
            ("1e2 ", "1e2"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("1, \"answer\" : 3", "3"),
            ("4, \"meta\": {\"answer\": 5}, \"odd\": \"\\\"answer\\\":6\"", "4"),
        ] {
            let line = format!("{{\"question\":\"answer\",\"answer\":{written}}}");
            let rows = open("numbers", line.as_bytes(), &Columns::default()).unwrap();
            assert_eq!(rows.get(0).answer, expected, "{line}");
        }
    }

    #[test]
    fn errors_name_file_line_and_column() {
        let table: [(&str, &[u8], &str); 11] = [
            ("json", b"{\"question\":\"a\",\"answer\":\"b\"}\n{\"question\" 1}", "line 2, column 13: expected `:`"),
            ("cut", b"{\"question\":\"a\"\n", "line 1, column 15: EOF while parsing an object"),
            ("more", b"\n{} {}", "line 2, column 4: trailing characters"),
            ("missing", b"{\"query\":\"a\"}", "line 1, column 1: no column \"question\"; the row has: query"),
            (
                "type",
                b"{\"question\":\"a\", \"answer\":[1]}",
                "line 1, column 18: column \"answer\" holds [1], not a text",
            ),
            (
                "wide",
                "{\"question\":\"äöü\", \"answer\":null}".as_bytes(),
                "line 1, column 20: column \"answer\" holds null",
            ),
            ("value", b"{\"question\":\"answer\", \"answer\":{}}", "line 1, column 23: column \"answer\" holds {}"),
            ("number", b"{\"question\":1, \"answer\":2}", "line 1, column 2: column \"question\" holds 1, not a text"),
            ("utf8", b"{\"question\":\"\xff\"}", "line 1, column 14: not UTF-8"),
            ("object", b"[1]", "line 1, column 1: a line is to be one JSON object"),
            ("empty", b"\n\n", "holds no example"),
        ];
        for (name, bytes, expected) in table {
            let message = open(name, bytes, &Columns::default()).unwrap_err().to_string();
            assert!(message.contains(expected), "{name}: {message}");
            assert!(message.contains(&format!("{name}.jsonl")), "{message}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = JsonLines::open(Path::new("no/such/file.jsonl"), &Columns::default()).unwrap_err();
        assert!(error.to_string().starts_with("cannot read no/such/file.jsonl: "), "{error}");
    }
}
