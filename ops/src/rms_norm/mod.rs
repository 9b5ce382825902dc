//! Root mean square norm (Zhang and Sennrich 2019, arXiv:1910.07467): `y_i = w_i x_i r`, `r = 1 / sqrt(mean(x²) + eps)`.
//! Over vectors of one head's size, several to a row, it is Qwen3's norm of queries and keys.

pub mod device;

use std::cell::Cell;
use std::ops::Range;

use super::team::Team;
use super::vector::{dot, dot3, grown, vectorised};

/// Where the vectors that are normed lie in rows of `row` values: `count` of them from value `first` on, end to end.
#[derive(Debug, Clone, Copy)]
pub struct Vectors {
    /// Values of a row.
    pub row: usize,
    /// Where in it the first vector begins.
    pub first: usize,
    /// Vectors of a row.
    pub count: usize,
}

impl Vectors {
    /// Each row is one.
    pub fn rows(k: usize) -> Self {
        Self { row: k, first: 0, count: 1 }
    }

    /// Where in a row they lie.
    fn places(self, k: usize) -> impl Iterator<Item = Range<usize>> {
        (0..self.count).map(move |i| self.first + i * k..self.first + (i + 1) * k)
    }
}

/// `1 / sqrt(mean(row²) + eps)`.
#[inline(always)]
fn reciprocal_rms(row: &[f32], eps: f32) -> f32 {
    1.0 / (dot(row, row) / row.len() as f32 + eps).sqrt()
}

/// `x`, `w (K)` -> `y`, of which values beside the vectors stay.
pub fn forward(team: &Team, vectors: Vectors, x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
    let piece = team.piece(x.len() / vectors.row) * vectors.row;
    team.each(x.chunks(piece).zip(y.chunks_mut(piece)), |(x, y)| {
        vectorised(
            #[inline(always)]
            || {
                for (x, y) in x.chunks_exact(vectors.row).zip(y.chunks_exact_mut(vectors.row)) {
                    for place in vectors.places(w.len()) {
                        forward_vector(&x[place.clone()], w, eps, &mut y[place]);
                    }
                }
            },
        );
    });
}

#[inline(always)]
fn forward_vector(x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
    let r = reciprocal_rms(x, eps);
    for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
        *y = w * (x * r);
    }
}

thread_local! {
    // Used again by every norm of a thread.
    static FACTORS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Rows whose input gradients are computed before they are added to the weights': one thread finds them in its first
/// cache then.
const ROWS_AT_A_TIME: usize = 16;

/// Adds the gradients: `dx += r (w dy) - x r³ mean(w dy x)`, `dw += sum over vectors of dy x r`.
///
/// `dx` is added to because the residual stream passes the norm by; `dw` is there if the norm is trained.
pub fn backward(team: &Team, vectors: Vectors, kept: Kept, dy: &[f32], dx: &mut [f32], mut dw: Option<&mut [f32]>) {
    let (row, rows) = (vectors.row, kept.x.len() / vectors.row);
    let at_a_time = if team.threads() == 1 { ROWS_AT_A_TIME } else { rows.max(1) };
    let mut factors = FACTORS.take();
    for ((x, dy), dx) in
        kept.x.chunks(at_a_time * row).zip(dy.chunks(at_a_time * row)).zip(dx.chunks_mut(at_a_time * row))
    {
        let (rows, kept) = (x.len() / row, Kept { x, ..kept });
        let factors = grown(&mut factors, rows * vectors.count);
        let piece = team.piece(rows);
        let inputs = x.chunks(piece * row).zip(dy.chunks(piece * row));
        let outputs = dx.chunks_mut(piece * row).zip(factors.chunks_mut(piece * vectors.count));
        team.each(inputs.zip(outputs), |((x, dy), (dx, factors))| {
            add_input_gradient(vectors, Kept { x, ..kept }, dy, dx, factors);
        });
        if let Some(dw) = &mut dw {
            let width = team.piece(dw.len());
            let pieces = dw.chunks_mut(width).zip((0..).step_by(width));
            team.each(pieces, |(dw, first)| add_weight_gradient(vectors, kept, dy, factors, first, dw));
        }
    }
    FACTORS.set(factors);
}

/// What [`forward`] read.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// The rows.
    pub x: &'a [f32],
    /// The weights `(K)`.
    pub w: &'a [f32],
    /// Added under the root.
    pub eps: f32,
}

/// Leaves each vector's `r` in `factors`.
fn add_input_gradient(vectors: Vectors, kept: Kept, dy: &[f32], dx: &mut [f32], factors: &mut [f32]) {
    let (Kept { x, w, eps }, Vectors { row, count, .. }) = (kept, vectors);
    vectorised(
        #[inline(always)]
        || {
            let rows = x.chunks_exact(row).zip(dy.chunks_exact(row)).zip(dx.chunks_exact_mut(row));
            for (((x, dy), dx), factors) in rows.zip(factors.chunks_exact_mut(count)) {
                for (place, factor) in vectors.places(w.len()).zip(factors) {
                    let (x, dy, dx) = (&x[place.clone()], &dy[place.clone()], &mut dx[place]);
                    let r = reciprocal_rms(x, eps);
                    let shared = dot3(w, dy, x) * r * r * r / w.len() as f32;
                    for (((dx, &w), &dy), &x) in dx.iter_mut().zip(w).zip(dy).zip(x) {
                        *dx += r * w * dy - x * shared;
                    }
                    *factor = r;
                }
            }
        },
    );
}

/// The gradient of the weights from `first` on, over the vectors in order.
fn add_weight_gradient(vectors: Vectors, kept: Kept, dy: &[f32], factors: &[f32], first: usize, dw: &mut [f32]) {
    let Vectors { row, count, .. } = vectors;
    vectorised(
        #[inline(always)]
        || {
            let rows = kept.x.chunks_exact(row).zip(dy.chunks_exact(row));
            for ((x, dy), factors) in rows.zip(factors.chunks_exact(count)) {
                for (place, &r) in vectors.places(kept.w.len()).zip(factors) {
                    let start = place.start + first;
                    for ((dw, &dy), &x) in dw.iter_mut().zip(&dy[start..]).zip(&x[start..]) {
                        *dw += dy * x * r;
                    }
                }
            }
        },
    );
}
