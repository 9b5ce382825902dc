//! Causal attention with grouped heads: over packed sequences of unequal length in [`packed`], and over a cache when
//! decoding in [`cached`]; what stands around it where keys and values are compressed, in [`latent`].
//!
//! `s_ij = q_i k_j / sqrt(D)` for `j <= i`, `p = softmax(s)`, `o_i = sum_j p_ij v_j`. The backward recomputes `p` from
//! the log-sum-exp, a few queries at a time: nothing of size `T x T` is kept (Dao et al. 2022, arXiv:2205.14135).
//!
//! Training and decoding give the same bits, because both form each score by multiply-adds over `d` in order, take
//! the sum of a row's exponentials in the same lanes, and add `p_ij v_j` over `j` in order.

pub mod cached;
pub mod latent;
pub mod packed;

use std::cell::Cell;
use std::ops::Range;

use super::vector::{self, LANES, exp, reduce};

/// The sizes of an attention layer. A row of `qkv` holds the queries, then the keys, then the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key and value heads; divides `query`.
    pub key_value: usize,
    /// Values a head of queries and keys (`D`), even.
    pub size: usize,
    /// Values a head of values: `D`, but for latent attention.
    pub value: usize,
}

impl Heads {
    /// Heads of queries, keys and values that all have `size` values.
    pub const fn alike(query: usize, key_value: usize, size: usize) -> Self {
        Self { query, key_value, size, value: size }
    }

    /// Values in a row of `qkv`.
    pub fn row(&self) -> usize {
        self.value(self.key_value)
    }

    /// Values in a row of the output.
    pub fn output(&self) -> usize {
        self.query * self.value
    }

    /// Query heads that share a key.
    pub(super) fn group(&self) -> usize {
        self.query / self.key_value
    }

    /// Where in a row of `qkv` a key head begins.
    fn key(&self, head: usize) -> usize {
        (self.query + head) * self.size
    }

    /// Where in a row of `qkv` a value head begins.
    fn value(&self, head: usize) -> usize {
        (self.query + self.key_value) * self.size + head * self.value
    }

    /// `1 / sqrt(D)`.
    pub(super) fn scale(&self) -> f32 {
        1.0 / (self.size as f32).sqrt()
    }
}

/// Rows of a packed batch that attend to each other: each to all rows of the prefix, then to those of its own up to itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Rows of an earlier segment, or none: the prompt that completions share.
    pub prefix: Range<usize>,
    /// Its own rows.
    pub rows: Range<usize>,
}

impl Segment {
    /// A whole sequence.
    pub fn alone(rows: Range<usize>) -> Self {
        Self { prefix: 0..0, rows }
    }

    /// Rows that its last row attends to.
    fn keys(&self) -> usize {
        self.prefix.len() + self.rows.len()
    }
}

/// Buffers that a thread uses again for every piece of work.
#[derive(Debug, Default)]
struct Scratch {
    rows: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    d_keys: Vec<f32>,
    d_values: Vec<f32>,
    scores: Vec<f32>,
    d_scores: Vec<f32>,
    sums: Vec<f32>,
    output: Vec<f32>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

/// Calls `work` with this thread's buffers.
fn with_scratch(work: impl FnOnce(&mut Scratch)) {
    let mut scratch = SCRATCH.take();
    work(&mut scratch);
    SCRATCH.set(scratch);
}

/// Turns a row's first `n` scores into unnormalised probabilities in place, zeroes the rest; returns largest and sum.
#[inline(always)]
fn exponentiate(scores: &mut [f32], n: usize, scale: f32) -> (f32, f32) {
    let mut largest = [f32::NEG_INFINITY; LANES];
    scores[n..].fill(f32::NEG_INFINITY);
    let (chunks, _) = scores.as_chunks_mut::<LANES>();
    for chunk in chunks.iter_mut() {
        for l in 0..LANES {
            chunk[l] *= scale;
            largest[l] = if chunk[l] > largest[l] { chunk[l] } else { largest[l] };
        }
    }
    let largest = vector::largest(largest);
    let mut sums = [0f32; LANES];
    for chunk in chunks {
        for l in 0..LANES {
            chunk[l] = exp(chunk[l] - largest);
            sums[l] += chunk[l];
        }
    }
    (largest, reduce(sums))
}
