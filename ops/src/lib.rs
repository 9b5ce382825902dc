//! The fused operations that the model and the loss stand on: a file an operation, each with its formula, its shapes,
//! its forward and its backward.
//!
//! These are the CPU bodies: functions over `f32` slices, single-threaded, because the caller cuts work into shards
//! and gives each thread one. CUDA bodies belong beside them, in the same files. Three rules hold everywhere:
//!
//! - **A row's result does not depend on the rows beside it.** Norms, rope, swiglu and softmax treat each row in one
//!   fixed order, and matrix products sum over the inner dimension in order; so a token sampled in one batch and
//!   trained on in another has the same log-probability to the bit.
//! - **No lane count leaks into a result.** Sums over a row use [`LANES`] partial sums on every machine.
//! - Gradients of weights are *added* to what the gradient buffer holds; gradients of activations are written.

pub mod adamw;
pub mod attention;
pub mod device;
pub mod embedding;
pub mod linear;
pub mod linear_logprob;
pub mod parallel;
mod product;
pub mod rms_norm;
pub mod rope;
pub mod sample;
pub mod swiglu;
mod vector;

pub use vector::{LANES, exp, instruction_set, vectorised};
