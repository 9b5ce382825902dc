//! The one integration crate.
#![allow(missing_docs, clippy::unwrap_used)]

/// Which runs are an arm.
mod arms;
/// The page in a real browser.
mod browser;
/// Folders as they are left, whole or not.
mod folders;
/// Folders that nobody ran.
#[path = "../../examples/made_up.rs"]
mod made_up;
/// What a page, a table and a picture hold.
mod report;
/// A run that is served.
#[cfg(feature = "serve")]
mod serve;
/// Figures against those of other programs.
mod statistics;
/// What a terminal shows.
#[cfg(feature = "watch")]
mod watch;
