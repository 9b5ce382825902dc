//! Examples in, nothing else: what a dataset row is, how rows are read, and how they are generated.
//! Knows no tensors, no tokenizer, and no rewards.

mod example;
mod random;

pub use example::{Dataset, Example};
pub use random::Counted;
