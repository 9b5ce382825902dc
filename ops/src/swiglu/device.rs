//! Launches of `kernel.cu`.
#![allow(unsafe_code)] // each launch's lengths are checked before it

use anyhow::Result;
use half::bf16;

use crate::device::columns::{WARP_ROWS, eights};
use crate::device::{Launch, Null, View};

fn check(gate_up: View<bf16>, f: usize, y: View<bf16>) {
    assert!(f.is_multiple_of(8) && y.len().is_multiple_of(f) && gate_up.len() == 2 * y.len(), "rows of F, 2F values");
}

/// `gate_up (T, 2F)` -> `y (T, F)`.
pub fn forward(gate_up: View<bf16>, f: usize, y: View<bf16>) -> Result<()> {
    check(gate_up, f, y);
    let launch = Launch::new("swiglu_forward", eights(y.len()), 256).arg(gate_up).arg(Null).arg(y).arg(f as u32);
    // SAFETY: lengths are checked above.
    unsafe { y.device().launch(&launch.arg(y.len() as u64)) }
}

/// The same, each row times its weight: `weights (T)`. A row that an expert weighs behind its last product comes to the
/// same: `down(w a) = w down(a)`.
pub fn weighed_forward(gate_up: View<bf16>, f: usize, weights: View<f32>, y: View<bf16>) -> Result<()> {
    check(gate_up, f, y);
    assert_eq!(weights.len() * f, y.len(), "a weight a row");
    let launch = Launch::new("swiglu_forward", eights(y.len()), 256).arg(gate_up).arg(weights).arg(y).arg(f as u32);
    // SAFETY: lengths are checked above.
    unsafe { y.device().launch(&launch.arg(y.len() as u64)) }
}

/// `dy (T, F)` -> the gradient of `gate_up (T, 2F)`, in its place.
pub fn backward(gate_up: View<bf16>, f: usize, dy: View<bf16>) -> Result<()> {
    check(gate_up, f, dy);
    let launch = Launch::new("swiglu_backward", eights(dy.len()), 256).arg(gate_up).arg(dy).arg(f as u32);
    // SAFETY: lengths are checked above.
    unsafe { dy.device().launch(&launch.arg(dy.len() as u64)) }
}

/// The backward of [`weighed_forward`]: the gradient of `gate_up` in its place, and that of the weights, written to
/// `d_weights (T)`.
pub fn weighed_backward(
    gate_up: View<bf16>,
    f: usize,
    weights: View<f32>,
    dy: View<bf16>,
    d_weights: View<f32>,
) -> Result<()> {
    check(gate_up, f, dy);
    let rows = weights.len();
    assert!(rows * f == dy.len() && d_weights.len() == rows, "a weight a row");
    let launch = Launch::new("swiglu_weighed_backward", [rows.div_ceil(WARP_ROWS), 1, 1], 128).arg(gate_up);
    let launch = launch.arg(weights).arg(dy).arg(d_weights).arg(f as u32).arg(rows as u32);
    // SAFETY: lengths are checked above.
    unsafe { dy.device().launch(&launch) }
}
