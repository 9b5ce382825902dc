//! AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101) over a flat stretch of weights, in one pass.

pub mod device;
pub mod eight_bit;

use super::team::Team;
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

/// Values that share a largest magnitude where moments have eight bits.
pub const MOMENT_BLOCK: usize = 256;

/// Values of a piece of an update, and of a chain of [`squared_norm`].
const PIECE: usize = 1 << 20;

/// `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g²`, `w -= lr (m̂ / (sqrt(v̂) + eps) + decay w)`.
pub fn update(team: &Team, step: Step, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    let size = team.piece(w.len()).min(PIECE);
    let moments = m.chunks_mut(size).zip(v.chunks_mut(size));
    team.each(w.chunks_mut(size).zip(g.chunks(size)).zip(moments), |((w, g), (m, v))| update_piece(step, w, g, m, v));
}

fn update_piece(step: Step, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
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

/// Chains of [`squared_norm`] that run side by side: one alone would wait for each of its own results.
const CHAINS: usize = 8;

/// `sum of g²` in f64: one chain over each [`PIECE`] values, and their sums in order, whatever the threads.
pub fn squared_norm(team: &Team, g: &[f32]) -> f64 {
    let mut sums = vec![0f64; g.len().div_ceil(PIECE)];
    team.each(g.chunks(CHAINS * PIECE).zip(sums.chunks_mut(CHAINS)), |(g, sums)| add_squares(g, sums));
    sums.into_iter().sum()
}

fn add_squares(g: &[f32], sums: &mut [f64]) {
    let square = |x: f32| f64::from(x) * f64::from(x);
    if g.len() < CHAINS * PIECE {
        return g.chunks(PIECE).zip(sums).for_each(|(g, sum)| *sum = g.iter().map(|&x| square(x)).sum());
    }
    let chains: [&[f32]; CHAINS] = std::array::from_fn(|chain| &g[chain * PIECE..][..PIECE]);
    let mut side_by_side = [0f64; CHAINS];
    for i in 0..PIECE {
        for (sum, chain) in side_by_side.iter_mut().zip(chains) {
            *sum += square(chain[i]);
        }
    }
    sums.copy_from_slice(&side_by_side);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_norm_is_the_same_on_any_threads_and_that_of_the_book() {
        for n in [0, 5, PIECE, PIECE + 1, CHAINS * PIECE, CHAINS * PIECE + 3] {
            let g: Vec<f32> = (0..n).map(|i| (i % 97) as f32 / 97.0).collect();
            let alone = squared_norm(&Team::alone(), &g);
            assert_eq!(Team::with(3, |team| squared_norm(team, &g)), alone);
            let plain: f64 = g.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            assert!((alone - plain).abs() <= 1e-9 * plain, "{n}: {alone}, not {plain}");
            assert!(n > PIECE || alone == plain, "one chain up to {PIECE} values");
        }
    }
}
