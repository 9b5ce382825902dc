//! SwiGLU (Shazeer 2020, arXiv:2002.05202): `y = silu(g) u`, `silu(g) = g / (1 + e^-g)`, on rows that hold `[g | u]`.

pub mod device;

use std::array;

use super::team::Team;
use super::vector::{LANES, exp, vectorised};

/// `gate_up (T, 2F)` -> `y (T, F)`.
pub fn forward(team: &Team, gate_up: &[f32], f: usize, y: &mut [f32]) {
    let rows = team.piece(y.len() / f);
    team.each(gate_up.chunks(rows * 2 * f).zip(y.chunks_mut(rows * f)), |(gate_up, y)| forward_rows(gate_up, f, y));
}

fn forward_rows(gate_up: &[f32], f: usize, y: &mut [f32]) {
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

/// `dy (T, F)` -> `dgate_up (T, 2F)`: `du = dy silu(g)`, `dg = dy u s (1 + g (1 - s))` with `s = 1 / (1 + e^-g)`; and the
/// forward's `y (T, F)` again, so that nobody need keep it.
pub fn backward(team: &Team, gate_up: &[f32], f: usize, dy: &[f32], dgate_up: &mut [f32], y: &mut [f32]) {
    let rows = team.piece(y.len() / f);
    let inputs = gate_up.chunks(rows * 2 * f).zip(dy.chunks(rows * f));
    let outputs = dgate_up.chunks_mut(rows * 2 * f).zip(y.chunks_mut(rows * f));
    team.each(inputs.zip(outputs), |((gate_up, dy), (dgate_up, y))| backward_rows(gate_up, f, dy, dgate_up, y));
}

fn backward_rows(gate_up: &[f32], f: usize, dy: &[f32], dgate_up: &mut [f32], y: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            let rows = gate_up.chunks_exact(2 * f).zip(dy.chunks_exact(f)).zip(dgate_up.chunks_exact_mut(2 * f));
            for (((row, dy), drow), y) in rows.zip(y.chunks_exact_mut(f)) {
                let ((gate, up), (dgate, dup)) = (row.split_at(f), drow.split_at_mut(f));
                // Whole arrays: the compiler does not vectorise a loop over five slices.
                let ((gates, gate), (ups, up), (dys, dy)) = (gate.as_chunks(), up.as_chunks(), dy.as_chunks());
                let ((dgates, dgate), (dups, dup), (ys, y)) =
                    (dgate.as_chunks_mut(), dup.as_chunks_mut(), y.as_chunks_mut());
                let outs = dgates.iter_mut().zip(dups).zip(ys);
                for ((((dgate, dup), y), gate), (up, dy)) in outs.zip(gates).zip(ups.iter().zip(dys)) {
                    backward_lanes::<LANES>([gate, up, dy], [dgate, dup, y]);
                }
                let outs = dgate.iter_mut().zip(dup).zip(y);
                for ((((dgate, dup), y), gate), (up, dy)) in outs.zip(gate).zip(up.iter().zip(dy)) {
                    backward_lanes::<1>([&[*gate], &[*up], &[*dy]], [dgate, dup, y].map(array::from_mut));
                }
            }
        },
    );
}

#[inline(always)]
fn backward_lanes<const N: usize>([gate, up, dy]: [&[f32; N]; 3], [dgate, dup, y]: [&mut [f32; N]; 3]) {
    for l in 0..N {
        let e = 1.0 + exp(-gate[l]);
        let s = 1.0 / e;
        y[l] = gate[l] / e * up[l];
        dgate[l] = dy[l] * up[l] * s * (1.0 + gate[l] * (1.0 - s));
        dup[l] = s * (dy[l] * gate[l]);
    }
}
