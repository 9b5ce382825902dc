//! What can be wrong with data. Every message names the place.

use std::path::{Path, PathBuf};

/// An error in a dataset or its configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or read.
    #[error("cannot read {}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The file is no Parquet file, or a damaged one.
    #[error("cannot read {}: it is no Parquet file, or a damaged one ({cause}): fetch it again", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        cause: parquet::errors::ParquetError,
    },
    /// There is no file, or one of a kind that is not read.
    #[error("cannot read {}: {problem}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What there is, and the way out.
        problem: &'static str,
    },
    /// A row is not what it should be.
    #[error("{}, {place}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Such as `line 3` or `row 3`, counted from 1.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// A file without rows.
    #[error("{} holds no example: give it at least one row", .0.display())]
    Empty(PathBuf),
    /// A configuration that no problem satisfies, or a value out of range.
    #[error("{0}")]
    Config(String),
}

impl Error {
    /// What is wrong with the row at `place` of a file.
    pub(crate) fn row(path: &Path, place: &str, problem: String) -> Self {
        Self::Row { path: path.into(), place: place.into(), problem }
    }
}
