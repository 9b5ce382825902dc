//! Rows of a Parquet file, as JSON values: lists and structures stay what they are, bytes without a text type become
//! base64. Which column is which is left to `shape`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;

use super::Row;
use crate::Error;

/// Whether a file is to be read as Parquet: by its ending, or by the four bytes that such a file starts with.
pub(super) fn is_parquet(path: &Path) -> Result<bool, Error> {
    let io = |cause| Error::Io { path: path.into(), cause };
    let mut start = Vec::new();
    File::open(path).map_err(io)?.take(4).read_to_end(&mut start).map_err(io)?;
    Ok(start == b"PAR1" || path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("parquet")))
}

/// Gives `each` the rows of a file in order.
pub(super) fn read(path: &Path, each: &mut dyn FnMut(Row) -> Result<(), Error>) -> Result<(), Error> {
    let file = File::open(path).map_err(|cause| Error::Io { path: path.into(), cause })?;
    let damaged = |cause: ParquetError| Error::Parquet { path: path.into(), cause };
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    for (index, row) in reader.get_row_iter(None).map_err(damaged)?.enumerate() {
        let Value::Object(columns) = row.map_err(damaged)?.to_json_value() else { continue };
        each(Row { columns, number: index + 1, place: format!("row {}", index + 1) })?;
    }
    Ok(())
}
