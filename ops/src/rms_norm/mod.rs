//! Root mean square norm (Zhang and Sennrich 2019, arXiv:1910.07467): `y_i = w_i x_i r`, `r = 1 / sqrt(mean(x²) + eps)`.
//! With rows of one head's size it is Qwen3's norm of queries and keys.

pub mod device;

use super::vector::{dot, dot3, vectorised};

/// `1 / sqrt(mean(row²) + eps)`.
#[inline(always)]
fn reciprocal_rms(row: &[f32], eps: f32) -> f32 {
    1.0 / (dot(row, row) / row.len() as f32 + eps).sqrt()
}

/// `x (T, K)`, `w (K)` -> `y (T, K)`.
pub fn forward(x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
    let k = w.len();
    vectorised(
        #[inline(always)]
        || {
            for (x, y) in x.chunks_exact(k).zip(y.chunks_exact_mut(k)) {
                let r = reciprocal_rms(x, eps);
                for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
                    *y = w * (x * r);
                }
            }
        },
    );
}

/// Adds the gradients: `dx += r (w dy) - x r³ mean(w dy x)`, `dw += sum over rows of dy x r`.
///
/// `dx` is added to because the residual stream passes the norm by; `dw` is there if the norm is trained.
pub fn backward(x: &[f32], w: &[f32], eps: f32, dy: &[f32], dx: &mut [f32], mut dw: Option<&mut [f32]>) {
    let k = w.len();
    vectorised(
        #[inline(always)]
        || {
            for ((x, dy), dx) in x.chunks_exact(k).zip(dy.chunks_exact(k)).zip(dx.chunks_exact_mut(k)) {
                let r = reciprocal_rms(x, eps);
                let shared = dot3(w, dy, x) * r * r * r / k as f32;
                // Two loops, each over few enough slices to be vectorised.
                if let Some(dw) = &mut dw {
                    for ((dw, &dy), &x) in dw.iter_mut().zip(dy).zip(x) {
                        *dw += dy * x * r;
                    }
                }
                for (((dx, &w), &dy), &x) in dx.iter_mut().zip(w).zip(dy).zip(x) {
                    *dx += r * w * dy - x * shared;
                }
            }
        },
    );
}
