//! SwiGLU (Shazeer 2020, arXiv:2002.05202): `y = silu(g) u`, `silu(g) = g / (1 + e^-g)`, on rows that hold `[g | u]`.

use std::array;

use super::vector::{LANES, exp, vectorised};

/// `gate_up (T, 2F)` -> `y (T, F)`.
pub fn forward(gate_up: &[f32], f: usize, y: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            for (row, y) in gate_up.chunks_exact(2 * f).zip(y.chunks_exact_mut(f)) {
                let (gate, up) = row.split_at(f);
                for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
                    *y = g / (1.0 + exp(-g)) * u;
                }
            }
        },
    );
}

/// `dy (T, F)` -> `dgate_up (T, 2F)`: `du = dy silu(g)`, `dg = dy u s (1 + g (1 - s))` with `s = 1 / (1 + e^-g)`.
pub fn backward(gate_up: &[f32], f: usize, dy: &[f32], dgate_up: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            let rows = gate_up.chunks_exact(2 * f).zip(dy.chunks_exact(f)).zip(dgate_up.chunks_exact_mut(2 * f));
            for ((row, dy), drow) in rows {
                let ((gate, up), (dgate, dup)) = (row.split_at(f), drow.split_at_mut(f));
                // Whole arrays: the compiler does not vectorise a loop over five slices.
                let ((gates, gate), (ups, up), (dys, dy)) = (gate.as_chunks(), up.as_chunks(), dy.as_chunks());
                let ((dgates, dgate), (dups, dup)) = (dgate.as_chunks_mut(), dup.as_chunks_mut());
                for ((((dgate, dup), gate), up), dy) in dgates.iter_mut().zip(dups).zip(gates).zip(ups).zip(dys) {
                    backward_lanes::<LANES>(gate, up, dy, dgate, dup);
                }
                for ((((dgate, dup), gate), up), dy) in dgate.iter_mut().zip(dup).zip(gate).zip(up).zip(dy) {
                    backward_lanes::<1>(&[*gate], &[*up], &[*dy], array::from_mut(dgate), array::from_mut(dup));
                }
            }
        },
    );
}

#[inline(always)]
fn backward_lanes<const N: usize>(
    gate: &[f32; N],
    up: &[f32; N],
    dy: &[f32; N],
    dgate: &mut [f32; N],
    dup: &mut [f32; N],
) {
    for l in 0..N {
        let s = 1.0 / (1.0 + exp(-gate[l]));
        dgate[l] = dy[l] * up[l] * s * (1.0 + gate[l] * (1.0 - s));
        dup[l] = s * (dy[l] * gate[l]);
    }
}
