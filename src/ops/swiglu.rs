//! SwiGLU (Shazeer 2020, arXiv:2002.05202): `y = silu(g) u`, `silu(g) = g / (1 + e^-g)`, on rows that hold `[g | u]`.

use super::vector::{exp, vectorised};

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
                let (gate, up) = row.split_at(f);
                let (dgate, dup) = drow.split_at_mut(f);
                // One short loop an output: the compiler does not vectorise a loop over all five.
                for (s, &g) in dup.iter_mut().zip(gate) {
                    *s = 1.0 / (1.0 + exp(-g));
                }
                for ((((dg, &s), &g), &u), &dy) in dgate.iter_mut().zip(&*dup).zip(gate).zip(up).zip(dy) {
                    *dg = dy * u * s * (1.0 + g * (1.0 - s));
                }
                for ((du, &g), &dy) in dup.iter_mut().zip(gate).zip(dy) {
                    *du *= dy * g;
                }
            }
        },
    );
}
