//! Reckon trains language models to reason: a rollout engine samples chain-of-thought completions, rule-based
//! verifiers give them binary rewards, and a group-relative policy optimizer (GRPO) updates the weights.
//!
//! One step, in the order in which data flows:
//!
//! ```text
//! Dataset -> Example -> Prompt -> Completion -> Verdict -> Rollout in a Group -> advantages
//!         -> TrainSample -> MicroBatch -> loss -> gradients -> AdamW -> Policy, its version raised
//! ```
//!
//! Read [`train::Trainer::step`] first; then the modules in this order.

pub mod audit;
pub mod batch;
pub mod checkpoint;
pub mod commands;
pub mod config;
pub mod disk;
pub mod eval;
pub mod groups;
pub mod grpo;
pub mod hub;
pub mod judge;
pub mod metrics;
pub mod model;
pub mod optim;
pub mod plan;
pub mod policy;
pub mod progress;
pub mod prompt;
pub mod rollout;
pub mod run;
pub mod sft;
pub mod strict;
pub mod tensor;
pub mod train;

pub use reckon_ops::{self as ops, parallel};
