//! What can be wrong with data. Every message names the place.

use std::path::PathBuf;

/// An error in a dataset or its configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A line is not what it should be.
    #[error("{path}, line {line}, column {column}: {problem}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What is wrong.
        problem: String,
    },
    /// A file without rows.
    #[error("{0} holds no example: each line is to be a JSON object")]
    Empty(PathBuf),
    /// A configuration that no problem satisfies, or a value out of range.
    #[error("{0}")]
    Config(String),
}
