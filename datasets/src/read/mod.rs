//! Examples from files of JSON, CSV or Parquet, of whatever known shape. Fetching files is left to others.

mod csv;
mod cut;
mod json;
mod lines;
mod only;
mod parquet;
mod shape;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub use cut::Cut;
pub use only::{Only, Wanted};
pub use shape::{Columns, Purpose};

use crate::{Dataset, Error, Example, Split};
use shape::Reading;
use source::Source;

/// Which split a hash is of. Generators hash their questions too, some of them as they stand, and what one has kept from
/// its own held-out share is a part of these hashes alone.
const SPLIT: u64 = 0xf11e;

/// A row as it stands in a file.
#[derive(Debug)]
pub struct Row {
    /// Its values by their names, both as they stand in the file and in that order.
    pub columns: Map<String, Value>,
    /// Counted from 1: the line of a file with a row in each.
    pub number: usize,
    /// Where it stands, for messages: `line 3` or `row 3`.
    pub place: String,
}

/// What is done with each row of a file.
type Each<'a> = &'a mut dyn FnMut(Row) -> Result<(), Error>;

/// Gives `each` the rows of a file in order, whatever its kind: JSON Lines, one JSON value, CSV or Parquet, plain or
/// compressed.
///
/// # Errors
/// Those of reading, and what `each` returns.
pub fn read_rows(path: &Path, each: Each) -> Result<(), Error> {
    match Source::open(path)? {
        Source::Parquet(file) => parquet::read(path, file, each),
        Source::Csv(text) => csv::read(path, text, each),
        Source::Json(text) => lines::read(path, text, each),
    }
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
    /// have the shape of the first row, whatever other columns they have and in whatever order.
    ///
    /// # Errors
    /// A file that cannot be read; no row in any of them; a row that lacks a column, or whose answer is empty.
    pub fn open(paths: &[PathBuf], columns: &Columns, purpose: Purpose) -> Result<Self, Error> {
        let mut examples = Vec::new();
        let mut reading: Option<Reading> = None;
        for path in paths {
            let stem = source::unpacked(path).file_stem().unwrap_or_default().to_string_lossy().into_owned();
            read_rows(path, &mut |row| {
                let fault = |problem| Error::row(path, &row.place, problem);
                let reading = match &reading {
                    Some(reading) => reading,
                    None => reading.insert(Reading::of(&row.columns, columns, purpose).map_err(fault)?),
                };
                let fallback = format!("{stem}-{}", row.number);
                examples.push(reading.example(row.columns.clone(), fallback).map_err(fault)?);
                Ok(())
            })?;
        }
        match (reading, paths) {
            (Some(reading), _) => Ok(Self { examples, shape: reading.shape }),
            (None, [first, ..]) => Err(Error::Empty(first.clone())),
            (None, []) => Err(Error::Config("no file is named: a dataset of files needs at least one".into())),
        }
    }

    /// The shape the rows were recognised as, such as `GSM8K`.
    pub fn shape(&self) -> &str {
        &self.shape
    }

    /// The rows whose columns hold what is wanted of them.
    ///
    /// # Errors
    /// A column that no row has, or values that no row has.
    pub fn only(mut self, wanted: &Only) -> Result<Self, Error> {
        wanted.iter().try_for_each(|(column, wanted)| wanted.retain(column, &mut self.examples))?;
        Ok(self)
    }

    /// The rows with further columns from a file of rows that name theirs in a column `id`, such as the pass rates of
    /// `reckon data measure`. Rows that it does not name stay as they are.
    ///
    /// # Errors
    /// A file that cannot be read, lacks the column, names a row twice, or names none of these rows.
    pub fn joined(mut self, path: &Path) -> Result<Self, Error> {
        let mut further = BTreeMap::new();
        read_rows(path, &mut |mut row| {
            let fault = |problem| Error::row(path, &row.place, problem);
            let id = match row.columns.shift_remove("id") {
                Some(Value::String(id)) => id,
                Some(Value::Number(id)) => id.to_string(),
                _ => return Err(fault("no column \"id\", which says of which row these columns are".into())),
            };
            if further.contains_key(&id) {
                return Err(fault(format!("row {id:?} stands here a second time: remove one")));
            }
            further.insert(id, row.columns);
            Ok(())
        })?;
        let mut known = 0;
        for example in &mut self.examples {
            if let Some(columns) = further.get(&example.id) {
                known += 1;
                example.info.extend(columns.clone());
            }
        }
        if known == 0 {
            let ids = self.examples.first().map_or(String::new(), |example| format!(", such as {:?}", example.id));
            return Err(Error::Config(format!("{} names none of the rows{ids}", path.display())));
        }
        Ok(self)
    }

    /// Rows to train on and rows held out: about `share` of all questions, told apart by a hash of the question, so
    /// that a question that stands twice is on one side only. Rows that a generator made to train on are told apart
    /// anew, by a hash of this split's own. Of a few rows none may be held out.
    ///
    /// # Errors
    /// A share outside `[0, 1)`, or one that leaves no row to train on.
    pub fn split(self, share: f64) -> Result<(Self, Self), Error> {
        if !(0.0..1.0).contains(&share) {
            let text = format!("held_out = {share}: a share from 0 to below 1 is needed, or a file");
            return Err(Error::Config(text));
        }
        let all = self.examples.len();
        let side = |example: &Example| {
            let words: Vec<u64> = std::iter::once(SPLIT).chain(example.question.bytes().map(u64::from)).collect();
            Split::of(&words, share)
        };
        let (train, held): (Vec<_>, Vec<_>) = self.examples.into_iter().partition(|e| side(e) == Split::Train);
        if train.is_empty() {
            let text = format!("held_out = {share} leaves none of the {all} rows to train on: name a file instead");
            return Err(Error::Config(text));
        }
        Ok((Self { examples: train, shape: self.shape.clone() }, Self { examples: held, shape: self.shape }))
    }
}

impl Dataset for FileRows {
    fn len(&self) -> usize {
        self.examples.len()
    }

    fn get(&self, index: usize) -> Example {
        self.examples[index].clone()
    }
}
