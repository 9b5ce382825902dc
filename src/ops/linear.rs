//! `y = x Wᵀ (+ b)`, with `W` stored `(N, K)` as Hugging Face stores it.

pub use super::product::Onto;
use super::product::{Left, Out, PANEL, Right, Shape, product};
use super::vector::vectorised;

/// A weight matrix `(N, K)` laid out for [`PackedMatrix::forward`]: panels of 32 outputs, each `(K, 32)`.
///
/// The sampler packs all weights once a call, the trainer once an update.
#[derive(Debug, Clone, Default)]
pub struct PackedMatrix {
    panels: Vec<f32>,
    n: usize,
    k: usize,
}

impl PackedMatrix {
    /// Packs `w (N, K)`.
    pub fn new(w: &[f32], k: usize) -> Self {
        let n = w.len() / k;
        let mut panels = vec![0f32; n.div_ceil(PANEL) * PANEL * k];
        for (rows, panel) in w.chunks(PANEL * k).zip(panels.chunks_exact_mut(PANEL * k)) {
            for (column, row) in rows.chunks_exact(k).enumerate() {
                for (i, &value) in row.iter().enumerate() {
                    panel[i * PANEL + column] = value;
                }
            }
        }
        Self { panels, n, k }
    }

    /// `y (T, N) = x (T, K) Wᵀ`, added to a bias or the residual stream.
    pub fn forward(&self, x: &[f32], y: &mut [f32], onto: Onto) {
        let (n, k) = (self.n, self.k);
        let left = Left { values: x, row: k, inner: 1 };
        for (p, panel) in self.panels.chunks_exact(PANEL * k).enumerate() {
            let shape = Shape { m: x.len() / k, n: (n - p * PANEL).min(PANEL), k };
            let out = Out { values: &mut y[p * PANEL..], row: n, onto: onto.at_column(p * PANEL) };
            product(shape, left, Right { values: panel, row: PANEL }, out);
        }
    }

    /// Outputs (`N`).
    pub fn outputs(&self) -> usize {
        self.n
    }
}

/// `dx (T, K) = dy (T, N) W`. Rows of `W` are read as they lie.
pub fn backward_input(dy: &[f32], w: &[f32], dx: &mut [f32], k: usize) {
    let n = w.len() / k;
    let left = Left { values: dy, row: n, inner: 1 };
    let out = Out { values: dx, row: k, onto: Onto::Nothing };
    product(Shape { m: dy.len() / n, n: k, k: n }, left, Right { values: w, row: k }, out);
}

/// Rows that a weight's gradient sums at a time: their `dy` stays in the second cache.
const CHUNK: usize = 128;

/// `dw (N, K) += dyᵀ x`.
pub fn backward_weight(dy: &[f32], x: &[f32], dw: &mut [f32], k: usize) {
    let n = dw.len() / k;
    for (dy, x) in dy.chunks(CHUNK * n).zip(x.chunks(CHUNK * k)) {
        let left = Left { values: dy, row: 1, inner: n };
        let out = Out { values: dw, row: k, onto: Onto::Held };
        product(Shape { m: n, n: k, k: x.len() / k }, left, Right { values: x, row: k }, out);
    }
}

/// `db (N) += sum over rows of dy (T, N)`.
pub fn backward_bias(dy: &[f32], db: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            for row in dy.chunks_exact(db.len()) {
                for (sum, &g) in db.iter_mut().zip(row) {
                    *sum += g;
                }
            }
        },
    );
}
