//! Root mean square norm (Zhang and Sennrich 2019, arXiv:1910.07467): `y_i = w_i x_i r`, `r = 1 / sqrt(mean(x²) + eps)`.
//! With rows of one head's size it is Qwen3's norm of queries and keys.

use super::vector::{sum_by, vectorised};

/// `1 / sqrt(mean(row²) + eps)`.
#[inline(always)]
fn reciprocal_rms(row: &[f32], eps: f32) -> f32 {
    1.0 / (sum_by(row.len(), |i| row[i] * row[i]) / row.len() as f32 + eps).sqrt()
}

/// `x (T, K)`, `w (K)` -> `y (T, K)`.
pub fn forward(x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
    let k = w.len();
    vectorised(
        #[inline(always)]
        || {
            for (x, y) in x.chunks_exact(k).zip(y.chunks_exact_mut(k)) {
                let r = reciprocal_rms(x, eps);
                for i in 0..k {
                    y[i] = w[i] * (x[i] * r);
                }
            }
        },
    );
}

/// Adds the gradients: `dx += r (w dy) - x r³ mean(w dy x)`, `dw += sum over rows of dy x r`.
///
/// `dx` is added to because the residual stream passes the norm by.
pub fn backward(x: &[f32], w: &[f32], eps: f32, dy: &[f32], dx: &mut [f32], dw: &mut [f32]) {
    let k = w.len();
    vectorised(
        #[inline(always)]
        || {
            for ((x, dy), dx) in x.chunks_exact(k).zip(dy.chunks_exact(k)).zip(dx.chunks_exact_mut(k)) {
                let r = reciprocal_rms(x, eps);
                let shared = sum_by(k, |i| w[i] * dy[i] * x[i]) * r * r * r / k as f32;
                for i in 0..k {
                    dw[i] += dy[i] * x[i] * r;
                    dx[i] += r * w[i] * dy[i] - x[i] * shared;
                }
            }
        },
    );
}
