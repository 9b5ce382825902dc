//! Launches of `kernel.cu`.
#![allow(unsafe_code)] // each launch's lengths are checked before it

use anyhow::Result;
use half::bf16;

use crate::device::columns::eights;
use crate::device::{Launch, View};

/// `gate_up (T, 2F)` -> `y (T, F)`.
pub fn forward(gate_up: View<bf16>, f: usize, y: View<bf16>) -> Result<()> {
    assert!(f.is_multiple_of(8) && y.len().is_multiple_of(f) && gate_up.len() == 2 * y.len(), "rows of F, 2F values");
    let launch = Launch::new("swiglu_forward", eights(y.len()), 256).arg(gate_up).arg(y).arg(f as u32);
    // SAFETY: lengths are checked above.
    unsafe { y.device().launch(&launch.arg(y.len() as u64)) }
}

/// `dy (T, F)` -> the gradient of `gate_up (T, 2F)`, in its place.
pub fn backward(gate_up: View<bf16>, f: usize, dy: View<bf16>) -> Result<()> {
    assert!(f.is_multiple_of(8) && dy.len().is_multiple_of(f) && gate_up.len() == 2 * dy.len(), "rows of F, 2F values");
    let launch = Launch::new("swiglu_backward", eights(dy.len()), 256).arg(gate_up).arg(dy).arg(f as u32);
    // SAFETY: lengths are checked above.
    unsafe { dy.device().launch(&launch.arg(dy.len() as u64)) }
}
