//! The one integration crate of the verifiers.
#![allow(missing_docs, clippy::unwrap_used)]

/// Rubrics and rows held to each other.
mod audit;
/// Programs: their verdicts, and what they cannot do.
mod code;
/// What the tables of verdicts share.
mod common;
/// The rewards that tools gave, as a part of a rubric.
mod environment;
/// What follows from each fault of a worker.
mod faults;
/// Python functions in the forms in which people write them.
mod functions;
/// IFEval's instructions, each followed and broken.
mod instructions;
/// Answers against schemas.
mod json_schema;
/// Assignments of values to names.
mod logic;
/// Mathematics, right and wrong, and how long it may take.
mod math;
/// Environments behind a WebSocket, and each fault of their servers.
mod openenv;
/// Plug-ins of every kind that judge as they should.
mod plugins;
/// A library of tasks, live in a worker.
mod reasoning_gym;
mod references;
/// Configs become rubrics, verdicts totals.
mod rubric;
/// Terms that say how a completion is written.
mod shaping;
/// Tools that completions call.
mod tools;
/// Any text gets a verdict.
mod total;
/// What the plain verifiers say, as tables.
mod verdicts;
