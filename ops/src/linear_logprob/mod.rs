//! Hidden states times vocabulary weights to the log-probability and entropy of given tokens, in chunks of rows:
//! a `(T, V)` tensor of logits never exists.
//!
//! `z = h Wᵀ / temperature`, `logprob = z_target - logsumexp(z)`, `entropy = logsumexp(z) - sum softmax(z) z`.

pub mod device;

use super::linear::{Epilogue, Linear};
use super::vector::{self, LANES, exp, reduce, vectorised};

/// Logits held at a time, in values: 1 MiB, which stays in the second cache.
const CHUNK_VALUES: usize = 1 << 18;
/// But at least so many rows: the weights of a large vocabulary lie in memory and are read anew for every chunk.
const CHUNK_ROWS: usize = 128;

/// Logits that exist at a time for a vocabulary of `v`: whole rows.
pub fn chunk_values(v: usize) -> usize {
    (CHUNK_VALUES / v).max(CHUNK_ROWS) * v
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

/// `h (R, K)`, `targets (R)`, weights `(V, K)` -> log-probability and entropy of each row.
pub fn forward(h: &[f32], head: &Linear, targets: &[u32], temperature: f32) -> (Vec<f32>, Vec<f32>) {
    let (v, k) = (head.outputs(), head.inputs());
    let rows = chunk_values(v) / v;
    let mut logits = vec![0f32; rows.min(targets.len()) * v];
    let (mut logprobs, mut entropies) = (Vec::with_capacity(targets.len()), Vec::with_capacity(targets.len()));
    for (h, targets) in h.chunks(rows * k).zip(targets.chunks(rows)) {
        let logits = &mut logits[..targets.len() * v];
        head.forward(h, logits, Epilogue::None);
        for (z, &target) in logits.chunks_exact_mut(v).zip(targets) {
            let stats = normalise(z, temperature);
            logprobs.push(z[target as usize] - stats.lse);
            entropies.push(stats.entropy);
        }
    }
    (logprobs, entropies)
}

/// `dlogprob (R)` -> `dh (R, K)` written, and the gradient of what is trained of the head added to `gradients`:
/// `dz = dlogprob (onehot - softmax(z)) / temperature`.
pub fn backward(
    h: &[f32],
    head: &Linear,
    targets: &[u32],
    temperature: f32,
    dlogprob: &[f32],
    dh: &mut [f32],
    gradients: &mut [f32],
) {
    let (v, k) = (head.outputs(), head.inputs());
    let rows = chunk_values(v) / v;
    let mut logits = vec![0f32; rows.min(targets.len()) * v];
    let chunks = h.chunks(rows * k).zip(dh.chunks_mut(rows * k));
    for ((h, dh), (targets, g)) in chunks.zip(targets.chunks(rows).zip(dlogprob.chunks(rows))) {
        let logits = &mut logits[..targets.len() * v];
        head.forward(h, logits, Epilogue::None);
        for ((z, &target), &g) in logits.chunks_exact_mut(v).zip(targets).zip(g) {
            let stats = normalise(z, temperature);
            let g = g / temperature;
            vectorised(
                #[inline(always)]
                || z.iter_mut().for_each(|z| *z = -g * exp(*z - stats.lse)),
            );
            z[target as usize] += g;
        }
        head.backward_input(logits, dh);
        head.backward_weight(h, logits, gradients);
    }
}
