//! Rows of a Parquet file, as JSON values: lists and structures stay what they are, decimals are numbers with all their
//! digits, bytes without a text type become base64. Which column is which is left to `shape`.

use std::fs::File;
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Map, Number, Value};

use super::{Each, Row};
use crate::Error;

/// Gives `each` the rows of a file in order.
pub(super) fn read(path: &Path, file: File, each: Each) -> Result<(), Error> {
    let damaged = |cause: ParquetError| Error::Parquet { path: path.into(), cause };
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    for (index, row) in reader.get_row_iter(None).map_err(damaged)?.enumerate() {
        let columns = object(&row.map_err(damaged)?);
        each(Row { columns, number: index + 1, place: format!("row {}", index + 1) })?;
    }
    Ok(())
}

fn object(row: &parquet::record::Row) -> Map<String, Value> {
    row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect()
}

fn value(field: &Field) -> Value {
    match field {
        Field::Group(row) => Value::Object(object(row)),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::MapInternal(map) => {
            let key = |key: &Field| match value(key) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            Value::Object(map.entries().iter().map(|(name, item)| (key(name), value(item))).collect())
        }
        // One without places ends with a point there.
        Field::Decimal(_) => digits(field.to_string().trim_end_matches('.')),
        other => other.to_json_value(),
    }
}

fn digits(text: &str) -> Value {
    Value::Number(Number::from_string_unchecked(text.to_owned()))
}
