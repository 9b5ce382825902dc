//! Reckon trains language models to reason.
#![cfg_attr(not(test), warn(clippy::expect_used))]

pub mod model;
pub mod ops;
pub mod parallel;
pub mod rollout;
