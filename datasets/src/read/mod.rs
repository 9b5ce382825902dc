//! Examples from files: JSON Lines or Parquet, of whatever known shape. Fetching files is left to others.

mod cut;
mod jsonl;
mod parquet;
mod shape;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub use cut::Cut;
pub use shape::{Columns, Purpose};

use crate::{Dataset, Error, Example, Split};
use shape::Reading;

/// A row as it stands in a file.
#[derive(Debug)]
struct Row {
    columns: Map<String, Value>,
    /// Counted from 1: the line of a text file.
    number: usize,
    /// The same for messages, such as `line 3`.
    place: String,
}

/// The rows of one or more files, in their order.
///
/// ```
/// use reckon_datasets::{Columns, Dataset, FileRows, Purpose};
/// let path = std::env::temp_dir().join("reckon-doc.jsonl");
/// std::fs::write(&path, r#"{"question": "6*7?", "answer": "Six times seven is 42.\n#### 42"}"#).unwrap();
/// let rows = FileRows::open(&[path], &Columns::default(), Purpose::Reference)?;
/// assert_eq!((rows.shape(), rows.get(0).answer.as_str()), ("GSM8K", "42"));
/// # Ok::<(), reckon_datasets::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct FileRows {
    examples: Vec<Example>,
    shape: String,
}

impl FileRows {
    /// Reads files whole. `columns` says which column is which where the shape is not one that is recognised; all files
    /// have the shape of the first row.
    ///
    /// # Errors
    /// A file that cannot be read or has no rows; a row that lacks a column, or whose answer is empty.
    pub fn open(paths: &[PathBuf], columns: &Columns, purpose: Purpose) -> Result<Self, Error> {
        let mut examples = Vec::new();
        let mut reading: Option<Reading> = None;
        for path in paths {
            let before = examples.len();
            read(path, &mut |row| {
                let fault = |problem| Error::Row { path: path.clone(), place: row.place.clone(), problem };
                let reading = match &reading {
                    Some(reading) => reading,
                    None => reading.insert(Reading::of(&row.columns, columns, purpose).map_err(fault)?),
                };
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                let fallback = format!("{stem}-{}", row.number);
                examples.push(reading.example(row.columns.clone(), fallback).map_err(fault)?);
                Ok(())
            })?;
            if examples.len() == before {
                return Err(Error::Empty(path.clone()));
            }
        }
        match reading {
            Some(reading) => Ok(Self { examples, shape: reading.shape }),
            None => Err(Error::Config("no file is named: a dataset of files needs at least one".into())),
        }
    }

    /// The shape the rows were recognised as, such as `GSM8K`.
    pub fn shape(&self) -> &str {
        &self.shape
    }

    /// The rows whose columns hold one of the values given for them, compared as text.
    ///
    /// # Errors
    /// A column that no row has, or values that no row has.
    pub fn only(mut self, wanted: &BTreeMap<String, Vec<String>>) -> Result<Self, Error> {
        for (column, values) in wanted {
            self.examples.retain(|example| match example.info.get(column) {
                Some(Value::String(text)) => values.contains(text),
                Some(other) => values.contains(&other.to_string()),
                None => false,
            });
            if self.examples.is_empty() {
                let text = format!("only: no row is left whose column {column:?} is one of {}", values.join(", "));
                return Err(Error::Config(text));
            }
        }
        Ok(self)
    }

    /// Rows to train on and rows held out: about `share` of all questions, told apart by a hash of the question, so
    /// that a question that stands twice is on one side only.
    ///
    /// # Errors
    /// A share outside `(0, 1)`, or one that leaves a side empty.
    pub fn split(self, share: f64) -> Result<(Self, Self), Error> {
        if !(share > 0.0 && share < 1.0) {
            return Err(Error::Config(format!("held_out = {share}: a share above 0 and below 1 is needed, or a file")));
        }
        let all = self.examples.len();
        let side = |example: &Example| {
            let words: Vec<u64> = example.question.bytes().map(u64::from).collect();
            Split::of(&words, share)
        };
        let (train, held): (Vec<_>, Vec<_>) = self.examples.into_iter().partition(|e| side(e) == Split::Train);
        if train.is_empty() || held.is_empty() {
            let text =
                format!("held_out = {share} leaves a side of the {all} rows empty: name a file of held-out rows");
            return Err(Error::Config(text));
        }
        Ok((Self { examples: train, shape: self.shape.clone() }, Self { examples: held, shape: self.shape }))
    }
}

fn read(path: &Path, each: &mut dyn FnMut(Row) -> Result<(), Error>) -> Result<(), Error> {
    if parquet::is_parquet(path)? { parquet::read(path, each) } else { jsonl::read(path, each) }
}

impl Dataset for FileRows {
    fn len(&self) -> usize {
        self.examples.len()
    }

    fn get(&self, index: usize) -> Example {
        self.examples[index].clone()
    }
}
