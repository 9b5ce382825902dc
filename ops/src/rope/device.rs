//! Launches of `kernel.cu`.
#![allow(unsafe_code)] // each launch's lengths are checked before it

use anyhow::Result;
use half::bf16;

use super::{Pairs, Parts};
use crate::device::{Launch, View};

/// Angles on the device, `(positions, half)` each, and what they turn.
#[derive(Clone, Copy)]
pub struct Angles<'a> {
    /// Pairs of a part.
    pub half: usize,
    /// Which values are turned with each other.
    pub pairs: Pairs,
    /// Cosines.
    pub cos: View<'a, f32>,
    /// Sines.
    pub sin: View<'a, f32>,
}

/// Rotates parts of every row of `x (T, stride)` in place, back again where `sign` is -1. The caller has checked that the
/// table holds every position.
pub fn rotate(
    angles: Angles,
    x: View<bf16>,
    positions: View<u32>,
    parts: Parts,
    stride: usize,
    sign: f32,
) -> Result<()> {
    let (Parts { first, step, count }, half) = (parts, angles.half);
    assert_eq!(x.len(), positions.len() * stride);
    assert!(count == 0 || first + (count - 1) * step + 2 * half <= stride, "a row holds its parts");
    let (next, apart) = match angles.pairs {
        Pairs::Halves => (1, half),
        Pairs::Neighbours => (2, 1),
    };
    let turned = [first, step, count, next, apart, half].map(|n| n as u32);
    let launch = Launch::new("rope_rotate", [positions.len(), 1, 1], 256).arg(x).arg(positions).arg(angles.cos);
    let launch = launch.arg(angles.sin).arg(turned).arg(stride as u32).arg(sign);
    // SAFETY: lengths are checked above.
    unsafe { x.device().launch(&launch) }
}
