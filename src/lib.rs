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
//! Read [`train::Trainer::step`] first; then the modules, which stand below in that order. Two crates hold what knows no
//! tensors, `reckon_datasets` (rows) and `reckon_rewards` (verdicts); `reckon_ops` holds the operations under the model, and is
//! [`ops`] here. ARCHITECTURE.md has the same as a map, with the reasons.

// What is printed goes through `output`: a reader who goes away is no panic.
#![warn(clippy::print_stderr)]

// From a config to prompts.
pub mod config;
pub mod hub;
pub mod prompt;
pub mod strict;

// From prompts to completions, and from completions to judged groups.
pub mod behaviours;
pub mod environment;
pub mod groups;
pub mod judge;
pub mod rollout;

// From groups to a loss.
pub mod batch;
pub mod grpo;

// From a loss to gradients, and from gradients to new weights.
pub mod foreign;
pub mod model;
pub mod optim;
pub mod policy;

// The step, what else trains or measures, and the run around it.
pub mod analyze;
pub mod audit;
pub mod eval;
pub mod measure;
pub mod run;
#[cfg(feature = "serve")]
pub mod serve;
pub mod servers;
pub mod sft;
pub mod traces;
pub mod train;

// What a run takes, shows and leaves.
pub mod checkpoint;
pub mod disk;
mod http;
pub mod launch;
pub mod metrics;
pub mod output;
pub mod plan;
pub mod progress;
pub mod ranks;
pub mod tensor;

// The command line.
pub mod commands;

pub use reckon_ops::{self as ops, parallel};
