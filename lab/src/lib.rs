//! What runs leave on disk, as numbers with error bars, pictures, and files of other programs. Knows folders of runs,
//! numbers and pages; no tensors, no model, no verifiers.
//!
//! A run is read as it lies there at any moment, also one that goes on or was killed in the middle of a line.
#![cfg_attr(test, allow(clippy::unwrap_used))]

// A run's folder.
pub mod evals;
pub mod run;
pub mod transcripts;

// What follows from it.
pub mod arms;
pub mod rollups;
pub mod stats;
pub mod summary;
pub mod words;

// Where it is shown.
pub mod charts;
pub mod csv;
pub mod report;
#[cfg(feature = "serve")]
pub mod serve;
pub mod svg;
#[cfg(feature = "watch")]
pub mod watch;

// Files of other programs.
pub mod log;
