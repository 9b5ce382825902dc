//! Examples in, nothing else: what a dataset row is, how rows are read, and how they are generated.
//! Knows no tensors, no tokenizer, and no rewards.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod chain;
mod countdown;
mod error;
mod example;
mod jsonl;
mod random;
mod trace_stats;
mod traces;

pub use countdown::{Countdown, CountdownConfig, Split};
pub use error::Error;
pub use example::{Dataset, Example};
pub use jsonl::{Columns, JsonLines};
pub use random::Counted;
pub use trace_stats::TraceStats;
pub use traces::{Trace, TraceConfig, Traces};
