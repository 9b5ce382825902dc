//! Launches of `kernel.cu`.
#![allow(unsafe_code)] // each launch's lengths are checked before it

use anyhow::Result;
use half::bf16;

use crate::device::{Launch, View};

/// Angles on the device: `(positions, half)` each.
#[derive(Clone, Copy)]
pub struct Angles<'a> {
    /// Pairs a head.
    pub half: usize,
    /// Cosines.
    pub cos: View<'a, f32>,
    /// Sines.
    pub sin: View<'a, f32>,
}

/// Rotates the first `heads` heads of every row of `x (T, stride)` in place, back again where `sign` is -1. The caller
/// has checked that the table holds every position.
pub fn rotate(
    angles: Angles,
    x: View<bf16>,
    positions: View<u32>,
    heads: usize,
    stride: usize,
    sign: f32,
) -> Result<()> {
    assert_eq!(x.len(), positions.len() * stride);
    assert!(heads * 2 * angles.half <= stride, "a row holds its heads");
    let launch = Launch::new("rope_rotate", [positions.len(), 1, 1], 256).arg(x).arg(positions).arg(angles.cos);
    let launch = launch.arg(angles.sin).arg(heads as u32).arg(angles.half as u32).arg(stride as u32).arg(sign);
    // SAFETY: lengths are checked above.
    unsafe { x.device().launch(&launch) }
}
