//! Experts on a device: launches of `kernel.cu`. Routers choose on the host, by what [`super::Router`] and
//! [`super::Dispatch`] do for a processor, so that choices are one code wherever a model is computed.
#![allow(unsafe_code)] // each launch's lengths are checked before it

use anyhow::Result;
use half::bf16;

use crate::device::columns::WARP_ROWS;
use crate::device::{Launch, View};

/// `out_t += sum over the choices of t of y`, best first, in fp32: `y (T A, K)` by place, `out (T, K)`. `places (T, A)`
/// are those of a [`super::Dispatch`].
pub fn add_up(y: View<bf16>, places: View<u32>, out: View<bf16>, k: usize) -> Result<()> {
    assert!(k.is_multiple_of(8), "kernels read eight values at a time");
    let rows = out.len() / k;
    assert!(out.len() == rows * k && y.len() == places.len() * k, "whole rows, one for each place");
    let Some(active) = places.len().checked_div(rows) else { return Ok(()) };
    assert_eq!(places.len(), rows * active, "each row has as many experts");
    let launch = Launch::new("experts_add_up", [rows.div_ceil(WARP_ROWS), 1, 1], 128).arg(y).arg(places).arg(out);
    // SAFETY: lengths are checked above.
    unsafe { out.device().launch(&launch.arg(rows as u32).arg(active as u32).arg(k as u32)) }
}
