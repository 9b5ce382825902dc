//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864), in the half-split layout of Hugging Face:
//! `(a, b) -> (a cos - b sin, b cos + a sin)` with `a` the first and `b` the second half of a head.

pub mod device;

use std::sync::Arc;

use super::team::Team;
use super::vector::vectorised;

/// `cos` and `sin` of `position * frequency`, computed in f64 once for all positions of a run. Copies share the table.
#[derive(Debug, Clone)]
pub struct RopeTable {
    half: usize,
    cos: Arc<[f32]>,
    sin: Arc<[f32]>,
}

impl RopeTable {
    /// For `positions` positions and heads of twice as many values as there are `frequencies` (radians per position).
    pub fn new(positions: usize, frequencies: &[f64]) -> Self {
        let table = |f: fn(f64) -> f64| {
            (0..positions).flat_map(|p| frequencies.iter().map(move |w| f(p as f64 * w) as f32)).collect()
        };
        Self { half: frequencies.len(), cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// Cosines and sines `(positions, D / 2)`, for a device.
    pub fn tables(&self) -> (&[f32], &[f32]) {
        (&self.cos, &self.sin)
    }

    /// How many positions the table holds.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }

    /// Rotates the first `heads` heads of every row of `x (T, stride)` in place, row `t` by `positions[t]`.
    pub fn rotate(&self, team: &Team, x: &mut [f32], positions: &[u32], heads: usize, stride: usize) {
        let rows = team.piece(positions.len());
        let pieces = x.chunks_mut(rows * stride).zip(positions.chunks(rows));
        team.each(pieces, |(x, positions)| self.turn(x, positions, heads, stride, 1.0));
    }

    /// The backward of [`RopeTable::rotate`]: the rotation by the opposite angle, which is its transpose.
    pub fn rotate_back(&self, team: &Team, dx: &mut [f32], positions: &[u32], heads: usize, stride: usize) {
        let rows = team.piece(positions.len());
        let pieces = dx.chunks_mut(rows * stride).zip(positions.chunks(rows));
        team.each(pieces, |(dx, positions)| self.turn(dx, positions, heads, stride, -1.0));
    }

    fn turn(&self, x: &mut [f32], positions: &[u32], heads: usize, stride: usize, sign: f32) {
        let half = self.half;
        vectorised(
            #[inline(always)]
            || {
                for (row, &position) in x.chunks_exact_mut(stride).zip(positions) {
                    let cos = &self.cos[position as usize * half..][..half];
                    let sin = &self.sin[position as usize * half..][..half];
                    for head in row[..heads * 2 * half].chunks_exact_mut(2 * half) {
                        let (first, second) = head.split_at_mut(half);
                        for i in 0..half {
                            let (a, b, s) = (first[i], second[i], sin[i] * sign);
                            first[i] = a * cos[i] - b * s;
                            second[i] = b * cos[i] + a * s;
                        }
                    }
                }
            },
        );
    }
}
