//! Rows of a CSV file, with a line of names first: every value is a text, and an empty one is null. The names are told
//! apart by what their line has most of: commas, semicolons or tabs.

use std::path::Path;

use ::csv::{ByteRecord, ErrorKind, ReaderBuilder};
use serde_json::{Map, Value};

use super::source::Text;
use super::{Each, Row};
use crate::Error;

/// Gives `each` the rows of a table in order.
pub(super) fn read(path: &Path, mut text: Text, each: Each) -> Result<(), Error> {
    let start = text.fill_buf().map_err(|cause| Error::Io { path: path.into(), cause })?;
    let delimiter = delimiter(start);
    let mut reader = ReaderBuilder::new().delimiter(delimiter).from_reader(text);
    let names = reader.byte_headers().map_err(|error| explain(path, error))?.clone();
    let names = texts(&names).map_err(|problem| Error::row(path, "line 1", problem))?;
    if let Some((_, name)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return Err(Error::row(path, "line 1", format!("two columns are called {name:?}: rename one")));
    }
    for (index, record) in reader.into_byte_records().enumerate() {
        let record = record.map_err(|error| explain(path, error))?;
        let place = format!("line {}", record.position().map_or(0, ::csv::Position::line));
        let cells = texts(&record).map_err(|problem| Error::row(path, &place, problem))?;
        let cells = cells.into_iter().map(|text| if text.is_empty() { Value::Null } else { text.into() });
        let columns: Map<String, Value> = names.iter().cloned().zip(cells).collect();
        each(Row { columns, number: index + 1, place })?;
    }
    Ok(())
}

/// What stands most often in the line of names.
fn delimiter(start: &[u8]) -> u8 {
    let line = start.split(|&b| b == b'\n').next().unwrap_or_default();
    let count = |delimiter: u8| line.iter().filter(|&&b| b == delimiter).count();
    [b'\t', b';', b','].into_iter().max_by_key(|&delimiter| count(delimiter)).unwrap_or(b',')
}

fn texts(record: &ByteRecord) -> Result<Vec<String>, String> {
    let text = |cell: &[u8]| String::from_utf8(cell.to_vec()).map_err(|_| "not UTF-8: save the file as UTF-8".into());
    record.iter().map(text).collect()
}

fn explain(path: &Path, error: ::csv::Error) -> Error {
    let line = error.position().map_or_else(|| "line 1".to_owned(), |position| format!("line {}", position.line()));
    match error.into_kind() {
        ErrorKind::Io(cause) => Error::Io { path: path.into(), cause },
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            let problem = format!(
                "{len} values where the first line has {expected_len} names: put values that hold the separator into \
                 double quotes"
            );
            Error::row(path, &line, problem)
        }
        other => Error::row(path, &line, format!("{other:?}")),
    }
}
