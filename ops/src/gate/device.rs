//! Launches of `kernel.cu`: values times their gates, and rows taken out from between their gates and put back.
#![allow(unsafe_code)] // each launch's lengths are checked before it

use anyhow::Result;
use half::bf16;

use super::{Gate, Gates};
use crate::device::columns::eights;
use crate::device::{Launch, View};

/// What the kernels are told of gates.
fn shape(gate: Gate, Gates { row, first, step, count, size }: Gates) -> [u32; 6] {
    let aligned = [row, first, step, size].iter().all(|n| n.is_multiple_of(8));
    assert!(aligned, "kernels read eight gates at a time");
    [row, first, step, count, size, usize::from(gate == Gate::Silu)].map(|n| n as u32)
}

fn check(places: Gates, gates: View<bf16>, x: View<bf16>) {
    assert_eq!(gates.len() / places.row * places.values(), x.len(), "a gate a value");
}

/// `x (T, count * size)` times its gates in `gates (T, row)` -> `y`, which may have its place.
pub fn forward(gate: Gate, places: Gates, gates: View<bf16>, x: View<bf16>, y: View<bf16>) -> Result<()> {
    check(places, gates, x);
    assert_eq!(x.len(), y.len());
    let launch = Launch::new("gate_forward", eights(x.len()), 256).arg(gates).arg(x).arg(y).arg(x.len() as u64);
    // SAFETY: lengths are checked above.
    unsafe { y.device().launch(&launch.arg(shape(gate, places))) }
}

/// The backward of [`forward`] over `x` as it was: `d`, the gradient of the product, becomes that of `x`, and that of the
/// gates is written to their places in `d_gates (T, row)`.
pub fn backward(
    gate: Gate,
    places: Gates,
    gates: View<bf16>,
    x: View<bf16>,
    d: View<bf16>,
    d_gates: View<bf16>,
) -> Result<()> {
    check(places, gates, x);
    assert_eq!((d.len(), d_gates.len()), (x.len(), gates.len()));
    let launch = Launch::new("gate_backward", eights(x.len()), 256).arg(gates).arg(x).arg(d).arg(d_gates);
    // SAFETY: lengths are checked above.
    unsafe { d.device().launch(&launch.arg(x.len() as u64).arg(shape(gate, places))) }
}

/// Rows of `width` values out of `projected (T, row)`, where gates lie behind each of the first `count` parts.
pub fn without_gates(places: Gates, projected: View<bf16>, rows: View<bf16>, width: usize) -> Result<()> {
    copy(places, rows, projected, width, false)
}

/// The backward of [`without_gates`], which leaves the places of gates in `d_projected` alone.
pub fn beside_gates(places: Gates, d_rows: View<bf16>, d_projected: View<bf16>, width: usize) -> Result<()> {
    copy(places, d_rows, d_projected, width, true)
}

fn copy(places: Gates, rows: View<bf16>, projected: View<bf16>, width: usize, back: bool) -> Result<()> {
    assert_eq!(width + places.values(), places.row, "values and their gates");
    assert_eq!(rows.len() / width * places.row, projected.len(), "as many rows");
    let launch = Launch::new("gate_beside", eights(rows.len()), 256).arg(rows).arg(projected).arg(rows.len() as u64);
    let launch = launch.arg(width as u32).arg(u32::from(back)).arg(shape(Gate::Sigmoid, places));
    // SAFETY: lengths are checked above.
    unsafe { rows.device().launch(&launch) }
}
