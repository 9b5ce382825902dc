//! Hidden states times vocabulary weights to the log-probability and entropy of given tokens, in chunks of rows:
//! a `(T, V)` tensor of logits never exists.
//!
//! `z = h Wᵀ / temperature`, `logprob = z_target - logsumexp(z)`, `entropy = logsumexp(z) - sum softmax(z) z`.

pub mod device;
pub mod distill;

use super::linear::{Epilogue, Linear};
use super::memory;
use super::team::Team;
use super::vector::{self, LANES, exp, reduce, vectorised};

/// Logits held at a time, in values: 1 MiB, which stays in the second cache.
const CHUNK_VALUES: usize = 1 << 18;
/// But at least so many rows, if they take 128 MiB at most: the weights of a large vocabulary lie in memory and are read anew
/// for every chunk, and of one chunk nothing is computed again.
pub const CHUNK_ROWS: usize = 512;
/// Those 128 MiB.
const MOST_VALUES: usize = 1 << 25;

/// Logits that exist at a time for a vocabulary of `v`: whole rows.
pub fn chunk_values(v: usize) -> usize {
    (CHUNK_VALUES / v).max(CHUNK_ROWS.min(MOST_VALUES / v)).max(1) * v
}

/// What a row of logits says of its distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowStats {
    /// `log sum exp(z)`.
    pub lse: f32,
    /// Entropy in nats.
    pub entropy: f32,
}

/// Scales `z` by `1 / temperature` in place and returns its statistics. The sampler and the trainer both call this.
pub fn normalise(z: &mut [f32], temperature: f32) -> RowStats {
    vectorised(
        #[inline(always)]
        || {
            let scale = 1.0 / temperature;
            let mut lanes = [f32::NEG_INFINITY; LANES];
            // Whole arrays are vectorised, chunks of a length that the compiler does not know are not.
            let (whole, rest) = z.as_chunks_mut::<LANES>();
            for chunk in whole {
                for l in 0..LANES {
                    chunk[l] *= scale;
                    lanes[l] = if chunk[l] > lanes[l] { chunk[l] } else { lanes[l] };
                }
            }
            for (lane, value) in lanes.iter_mut().zip(rest) {
                *value *= scale;
                *lane = if *value > *lane { *value } else { *lane };
            }
            let largest = vector::largest(lanes);
            let (mut sums, mut weighted) = ([0f32; LANES], [0f32; LANES]);
            let (whole, rest) = z.as_chunks::<LANES>();
            for chunk in whole {
                for l in 0..LANES {
                    let shifted = chunk[l] - largest;
                    let p = exp(shifted);
                    sums[l] += p;
                    weighted[l] += p * shifted;
                }
            }
            for (l, value) in rest.iter().enumerate() {
                let shifted = value - largest;
                let p = exp(shifted);
                sums[l] += p;
                weighted[l] += p * shifted;
            }
            let sum = reduce(sums);
            let log_sum = sum.ln();
            RowStats { lse: largest + log_sum, entropy: log_sum - reduce(weighted) / sum }
        },
    )
}

/// The first of the largest logits.
pub fn argmax(z: &[f32]) -> usize {
    (1..z.len()).fold(0, |best, i| if z[i] > z[best] { i } else { best })
}

/// The logits of a chunk of rows, for a [`backward`] right after the [`forward`] that left them, and as memory.
#[derive(Debug, Default)]
pub struct Logits {
    /// `(rows, V)`, scaled.
    values: Vec<f32>,
    lse: Vec<f32>,
    entropy: Vec<f32>,
}

impl Logits {
    /// Gives their memory back to the system.
    pub fn give_back(self) {
        memory::give_back(self.values);
    }

    /// Leaves the scaled logits of rows `h`, and what they say, with the pairs that `read` makes of each row in `out`.
    fn of<T: Send>(
        &mut self,
        team: &Team,
        h: &[f32],
        head: &Linear,
        temperature: f32,
        out: &mut [T],
        read: impl Fn(usize, &[f32], RowStats) -> T + Sync,
    ) {
        let (v, rows) = (head.outputs(), h.len() / head.inputs());
        memory::sized(&mut self.values, rows * v);
        self.lse.resize(rows, 0.0);
        self.entropy.resize(rows, 0.0);
        head.forward(team, h, &mut self.values, Epilogue::None);
        let piece = team.piece(rows);
        let said = self.lse.chunks_mut(piece).zip(self.entropy.chunks_mut(piece));
        let outs = said.zip(out.chunks_mut(piece));
        team.each(self.values.chunks_mut(piece * v).zip(outs).zip((0..).step_by(piece)), |((z, outs), first)| {
            let ((lse, entropy), out) = outs;
            let said = lse.iter_mut().zip(entropy).zip(out);
            for (row, (z, ((lse, entropy), out))) in z.chunks_exact_mut(v).zip(said).enumerate() {
                let stats = normalise(z, temperature);
                (*lse, *entropy, *out) = (stats.lse, stats.entropy, read(first + row, z, stats));
            }
        });
    }
}

/// Rows and weights `(V, K)` -> log-probability and entropy of each row.
pub fn forward(team: &Team, rows: Rows, head: &Linear, logits: &mut Logits) -> (Vec<f32>, Vec<f32>) {
    let (v, k) = (head.outputs(), head.inputs());
    let at_a_time = chunk_values(v) / v;
    let mut both = vec![(0f32, 0f32); rows.targets.len()];
    let chunks = rows.h.chunks(at_a_time * k).zip(rows.targets.chunks(at_a_time));
    for ((h, targets), both) in chunks.zip(both.chunks_mut(at_a_time)) {
        let read = |row: usize, z: &[f32], stats: RowStats| (z[targets[row] as usize] - stats.lse, stats.entropy);
        logits.of(team, h, head, rows.temperature, both, read);
    }
    both.into_iter().unzip()
}

/// Derivatives of what is minimised, by row.
#[derive(Debug, Clone, Copy)]
pub struct Slopes<'a> {
    /// (R) with respect to the log-probability of the target.
    pub logprobs: &'a [f32],
    /// (R) with respect to the entropy; empty for 0.
    pub entropies: &'a [f32],
}

/// Slopes `(R)` -> `dh (R, K)` written, and the gradient of what is trained of the head added to `gradients`:
/// `dz = (dlogprob (onehot - p) - dentropy p (ln p + entropy)) / temperature`, `p = softmax(z)`.
///
/// `logits` are as [`forward`] left them: of one chunk nothing is computed again.
pub fn backward(
    team: &Team,
    rows: Rows,
    head: &Linear,
    slopes: Slopes,
    logits: &mut Logits,
    dh: &mut [f32],
    gradients: &mut [f32],
) {
    let (v, k) = (head.outputs(), head.inputs());
    let at_a_time = chunk_values(v) / v;
    let chunks = rows.h.chunks(at_a_time * k).zip(dh.chunks_mut(at_a_time * k));
    let starts = (0..).step_by(at_a_time);
    for (((h, dh), targets), start) in chunks.zip(rows.targets.chunks(at_a_time)).zip(starts) {
        if rows.targets.len() > at_a_time {
            logits.of(team, h, head, rows.temperature, &mut vec![(); targets.len()], |_, _, _| ());
        }
        let piece = team.piece(targets.len());
        let said = logits.lse.chunks(piece).zip(logits.entropy.chunks(piece)).zip(targets.chunks(piece));
        let inputs = said.zip((start..).step_by(piece));
        team.each(logits.values.chunks_mut(piece * v).zip(inputs), |(z, (((lse, entropy), targets), first))| {
            let said = lse.iter().zip(entropy).zip(targets);
            for (row, (z, ((&lse, &entropy), &target))) in z.chunks_exact_mut(v).zip(said).enumerate() {
                let of = |slopes: &[f32]| slopes.get(first + row).map_or(0.0, |slope| slope / rows.temperature);
                slope_of_row(z, RowStats { lse, entropy }, target as usize, of(slopes.logprobs), of(slopes.entropies));
            }
        });
        head.backward_input(team, &logits.values, dh);
        head.backward_weight(team, h, &logits.values, gradients);
    }
}

/// Puts the derivatives in the place of a row of logits; `g` and `e` are the slopes over the temperature.
fn slope_of_row(z: &mut [f32], stats: RowStats, target: usize, g: f32, e: f32) {
    let RowStats { lse, entropy } = stats;
    vectorised(
        #[inline(always)]
        || match e {
            0.0 => z.iter_mut().for_each(|z| *z = -g * exp(*z - lse)),
            e => z.iter_mut().for_each(|z| *z = -(g + e * (*z - lse + entropy)) * exp(*z - lse)),
        },
    );
    z[target] += g;
}

/// What log-probabilities are taken of: `h (R, K)`, `targets (R)`.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Hidden states.
    pub h: &'a [f32],
    /// The token that each predicts.
    pub targets: &'a [u32],
    /// Divides the logits.
    pub temperature: f32,
}
