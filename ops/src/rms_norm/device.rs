//! Launches of `kernel.cu`: the norm of the rows of [`Rows`], forward and backward.
#![allow(unsafe_code)] // each launch's lengths are checked before it

use anyhow::Result;
use half::bf16;

use crate::device::columns::{Rows, column_sums, stretches};
use crate::device::{Launch, View};
use crate::linear::device::Weight;

/// What a norm multiplies by.
#[derive(Clone, Copy)]
pub struct Scale<'a> {
    w: View<'a, bf16>,
    /// Added to it.
    base: f32,
}

impl<'a> From<View<'a, bf16>> for Scale<'a> {
    fn from(w: View<'a, bf16>) -> Self {
        Self { w, base: 0.0 }
    }
}

impl<'a> From<Weight<'a>> for Scale<'a> {
    fn from(Weight { values, around_one, .. }: Weight<'a>) -> Self {
        Self { w: values, base: if around_one { 1.0 } else { 0.0 } }
    }
}

/// `x`, `scale (k)` -> `y` of the same places, and the rows' factors for the backward.
pub fn forward<'a>(
    rows: Rows,
    x: View<bf16>,
    scale: impl Into<Scale<'a>>,
    y: View<bf16>,
    factors: View<f32>,
    eps: f32,
) -> Result<()> {
    let (Scale { w, base }, count) = (scale.into(), rows.count(x));
    assert_eq!((w.len(), y.len(), factors.len()), (rows.k, x.len(), count));
    let launch = Launch::new("rms_norm_forward", rows.grid(x), 128).arg(x).arg(w).arg(y).arg(factors).arg(count as u32);
    let launch = launch.arg(rows.k as u32).arg(rows.heads as u32).arg(rows.stride as u32).arg(base).arg(eps);
    // SAFETY: lengths are checked above.
    unsafe { x.device().launch(&launch) }
}

/// What the backward of a norm reads.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    /// Input of the forward.
    pub x: View<'a, bf16>,
    /// What it multiplied by.
    pub w: Scale<'a>,
    /// Factors that the forward left.
    pub factors: View<'a, f32>,
}

/// `dy` -> `dx`, added to where `add` (the residual stream passes the norm by), else written; `dw`, if the weight is trained,
/// is added to.
pub fn backward(
    rows: Rows,
    kept: Kept,
    dy: View<bf16>,
    dx: View<bf16>,
    add: bool,
    dw: Option<View<f32>>,
    partial: View<f32>,
) -> Result<()> {
    let count = rows.count(kept.x);
    assert_eq!((kept.w.w.len(), kept.factors.len()), (rows.k, count));
    assert_eq!((dy.len(), dx.len()), (kept.x.len(), kept.x.len()));
    // The weight's gradient first: `dx` may take the place of `dy`.
    if let Some(dw) = dw {
        assert_eq!(dw.len(), rows.k);
        let sums = Launch::new("column_partials", stretches(rows.k, count), 256).arg(dy).arg(kept.x).arg(kept.factors);
        column_sums(sums, rows, count, dw, partial)?;
    }
    let launch = Launch::new("rms_norm_backward", rows.grid(kept.x), 128).arg(kept.x).arg(kept.w.w).arg(kept.factors);
    let launch = launch.arg(dy).arg(dx).arg(count as u32).arg(rows.k as u32).arg(rows.heads as u32);
    // SAFETY: lengths are checked above.
    unsafe { dx.device().launch(&launch.arg(rows.stride as u32).arg(kept.w.base).arg(u32::from(add))) }
}
