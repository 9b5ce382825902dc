//! Examples in, nothing else: what a dataset row is, how rows are read, and how they are generated.
//! Knows no tensors, no tokenizer, and no rewards.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answer;
mod behaviour;
mod error;
mod example;
mod generate;
mod order;
mod plain;
mod random;
mod read;
mod table;
mod write;

pub use answer::Answer;
pub use behaviour::search::TraceStats;
pub use behaviour::{Fold, Measure, TraceReader};
pub use error::Error;
pub use example::{Dataset, Example};
pub use generate::arithmetic::{Arithmetic, ArithmeticConfig};
pub use generate::countdown::{Countdown, CountdownConfig};
pub use generate::knights::{Knights, KnightsConfig};
pub use generate::multiplication::{Multiplication, MultiplicationConfig};
pub use generate::parity::{Parity, ParityConfig};
pub use generate::three_sum::{ThreeSum, ThreeSumConfig};
pub use generate::traces::{Attempt, Attempts, Thought, Trace, TraceConfig, TraceSource, Traced, Traces, Words};
pub use generate::{Generated, Split, Task};
pub use order::{BLOCK, Lane, Order};
pub use plain::{Plain, plain_map};
pub use random::Counted;
pub use read::{Columns, Cut, FileRows, Only, Purpose, Row, Wanted, read_rows};
pub use table::{Key, Range, Table, choices};
pub use write::write_parquet;
