//! Draws of tokens on a device: launches of `ops/draw.cu`.
#![allow(unsafe_code)] // each launch's lengths are checked before it

use anyhow::Result;

use crate::device::{Launch, View};

/// A token, and the bits of its log-probability as `f32`.
pub type Draw = [u32; 2];

fn launch(kernel: &'static str, logits: View<f32>, draws: View<Draw>) -> (Launch, u32) {
    let columns = logits.len() / draws.len().max(1);
    assert!(logits.len() == draws.len() * columns && (columns > 0 || draws.is_empty()), "a row of logits a draw");
    (Launch::new(kernel, [draws.len(), 1, 1], 512).arg(logits), columns as u32)
}

/// `logits (R, V)` -> the first token of each row at which the cumulative probability at `temperature` passes
/// `uniforms (R)`, in `[0, 1)`, with its log-probability.
pub fn any(logits: View<f32>, uniforms: View<f64>, temperature: f32, draws: View<Draw>) -> Result<()> {
    assert_eq!(uniforms.len(), draws.len());
    let (launch, columns) = launch("draw_any", logits, draws);
    // SAFETY: lengths are checked above.
    unsafe { logits.device().launch(&launch.arg(uniforms).arg(draws).arg(columns).arg(temperature)) }
}

/// `logits (R, V)` -> the first of each row's likeliest tokens, with its log-probability at temperature 1.
pub fn likeliest(logits: View<f32>, draws: View<Draw>) -> Result<()> {
    let (launch, columns) = launch("draw_likeliest", logits, draws);
    // SAFETY: lengths are checked above.
    unsafe { logits.device().launch(&launch.arg(draws).arg(columns)) }
}
