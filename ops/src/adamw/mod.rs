//! AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101) over a flat stretch of weights, in one pass.

pub mod device;

use super::vector::vectorised;

/// What one update needs to know beyond the buffers.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the square root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Multiplies every gradient: the clip factor.
    pub scale: f32,
    /// Number of this update, from 1: corrects the moments' bias.
    pub count: u64,
}

impl Step {
    /// What corrects the bias of the two moments: `1 / (1 - beta^count)`.
    pub fn corrections(&self) -> [f32; 2] {
        let power = self.count.min(i32::MAX as u64) as i32;
        [self.beta1, self.beta2].map(|beta| (1.0 / (1.0 - f64::from(beta).powi(power))) as f32)
    }
}

/// `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g²`, `w -= lr (m̂ / (sqrt(v̂) + eps) + decay w)`.
pub fn update(step: Step, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    let [correct1, correct2] = step.corrections();
    vectorised(
        #[inline(always)]
        || {
            let n = w.len();
            let (g, m, v) = (&g[..n], &mut m[..n], &mut v[..n]);
            for i in 0..n {
                let g = g[i] * step.scale;
                m[i] = step.beta1 * m[i] + (1.0 - step.beta1) * g;
                v[i] = step.beta2 * v[i] + (1.0 - step.beta2) * g * g;
                let direction = m[i] * correct1 / ((v[i] * correct2).sqrt() + step.eps);
                w[i] -= step.lr * (direction + step.weight_decay * w[i]);
            }
        },
    );
}

/// `sum of g²` in f64.
pub fn squared_norm(g: &[f32]) -> f64 {
    g.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}
