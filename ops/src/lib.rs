//! The fused operations that the model and the loss stand on: one folder for each, with its formula, its shapes, its forward and
//! its backward on a CPU (`mod.rs`), its CUDA kernel (`kernel.cu`) and what launches that (`device.rs`). [`device`] is the seam
//! to a card. All `unsafe` of the project is in this crate.
//!
//! The CPU's are functions over `f32` slices, computed by the threads of a [`team`]. Where a caller gives each thread
//! micro-batches of its own, the team is one thread. Three rules hold everywhere:
//!
//! - **A row's result does not depend on the rows beside it.** Norms, rope, swiglu and softmax treat each row in one
//!   fixed order, and matrix products sum over the inner dimension in order; so a token sampled in one batch and
//!   trained on in another has the same log-probability to the bit. Nor does a sum over rows depend on the threads.
//! - **No lane count leaks into a result.** Sums over a row use [`LANES`] partial sums on every machine.
//! - Gradients of weights are *added* to what the gradient buffer holds; gradients of activations are written.

pub mod adamw;
pub mod attention;
pub mod bf16;
pub mod delta;
pub mod device;
pub mod embedding;
pub mod experts;
pub mod gate;
pub mod linear;
pub mod linear_logprob;
mod matrix;
pub mod memory;
pub mod parallel;
mod product;
pub mod rms_norm;
pub mod rope;
pub mod sample;
pub mod swiglu;
pub mod team;
mod vector;

pub use vector::{LANES, exp, instruction_set, vectorised};
