//! Sampled tokens on a device: launches of `kernel.cu`. The CPU samples in `rollout/sampling.rs`, by the same rule.
#![allow(unsafe_code)] // each launch's lengths are checked before it

use anyhow::Result;

use crate::device::{Launch, View};

/// A token, and the bits of its log-probability as `f32`.
pub type Sampled = [u32; 2];

fn launch(kernel: &'static str, logits: View<f32>, sampled: View<Sampled>) -> (Launch, u32) {
    let columns = logits.len() / sampled.len().max(1);
    assert!(
        logits.len() == sampled.len() * columns && (columns > 0 || sampled.is_empty()),
        "a row of logits a sampled"
    );
    (Launch::new(kernel, [sampled.len(), 1, 1], 512).arg(logits), columns as u32)
}

/// `logits (R, V)` -> the first token of each row at which the cumulative probability at `temperature` passes
/// `uniforms (R)`, in `[0, 1)`, with its log-probability.
pub fn rows(logits: View<f32>, uniforms: View<f64>, temperature: f32, sampled: View<Sampled>) -> Result<()> {
    assert_eq!(uniforms.len(), sampled.len());
    let (launch, columns) = launch("sample_rows", logits, sampled);
    // SAFETY: lengths are checked above.
    unsafe { logits.device().launch(&launch.arg(uniforms).arg(sampled).arg(columns).arg(temperature)) }
}

/// `logits (R, V)` -> the first of each row's likeliest tokens, with its log-probability at temperature 1.
pub fn argmax(logits: View<f32>, sampled: View<Sampled>) -> Result<()> {
    let (launch, columns) = launch("argmax_rows", logits, sampled);
    // SAFETY: lengths are checked above.
    unsafe { logits.device().launch(&launch.arg(sampled).arg(columns)) }
}
