//! Causal attention with grouped heads over packed sequences of unequal length, and over a cache when decoding.
//!
//! `s_ij = q_i k_j / sqrt(D)` for `j <= i`, `p = softmax(s)`, `o_i = sum_j p_ij v_j`. The backward recomputes `p` from
//! the log-sum-exp, four queries at a time: nothing of size `T x T` is kept (Dao et al. 2022, arXiv:2205.14135).
//!
//! Training and decoding give the same bits, because both form each score by multiply-adds over `d` in order, take
//! the sum of a row's exponentials in the same lanes, and add `p_ij v_j` over `j` in order. Both read keys in blocks
//! of [`LANES`], transposed, so that a vector holds one coordinate of 16 keys.

use super::vector::{LANES, exp, prefetch, reduce, vectorised};

/// Most query heads a model may have: their sums lie on the stack.
pub const MAX_QUERY_HEADS: usize = 256;

/// Queries that share every load of a key or a value.
const TILE: usize = 4;

/// The sizes of an attention layer. A row of `qkv` holds the queries, then the keys, then the values.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key and value heads; divides `query`.
    pub key_value: usize,
    /// Values a head (`D`): 8, 16, 32, 64, 80, 96 or 128.
    pub size: usize,
}

impl Heads {
    /// Values in a row of `qkv`.
    pub fn row(&self) -> usize {
        (self.query + 2 * self.key_value) * self.size
    }

    /// Values in a row of the output.
    pub fn output(&self) -> usize {
        self.query * self.size
    }

    /// Whether there is a kernel for this head size.
    pub fn supported(&self) -> bool {
        matches!(self.size, 8 | 16 | 32 | 64 | 80 | 96 | 128)
    }
}

/// Calls `$function::<D>` for the head size at hand.
macro_rules! for_size {
    ($size:expr, $function:ident ( $($argument:expr),* )) => {
        match $size {
            8 => $function::<8>($($argument),*),
            16 => $function::<16>($($argument),*),
            32 => $function::<32>($($argument),*),
            64 => $function::<64>($($argument),*),
            80 => $function::<80>($($argument),*),
            96 => $function::<96>($($argument),*),
            128 => $function::<128>($($argument),*),
            other => unreachable!("head size {other} was accepted by the model's config"),
        }
    };
}

/// Blocks of [`LANES`] keys that hold `t` keys.
fn blocks(t: usize) -> usize {
    t.div_ceil(LANES)
}

/// Writes key `j` into its place in the transposed blocks `(blocks, D, LANES)` of one head.
#[inline(always)]
pub fn put_transposed(key: &[f32], j: usize, transposed: &mut [f32]) {
    let block = &mut transposed[j / LANES * key.len() * LANES..][..key.len() * LANES];
    for (d, &value) in key.iter().enumerate() {
        block[d * LANES + j % LANES] = value;
    }
}

/// `R` rows of scores against one block of keys: `sum_d q_d k_d`, over `d` in order.
#[inline(always)]
fn score_block<const D: usize, const R: usize>(queries: [&[f32; D]; R], block: &[f32]) -> [[f32; LANES]; R] {
    let block: &[[f32; LANES]] = block.as_chunks().0;
    let block = &block[..D];
    let mut sums = [[0f32; LANES]; R];
    for d in 0..D {
        for r in 0..R {
            for l in 0..LANES {
                sums[r][l] = queries[r][d].mul_add(block[d][l], sums[r][l]);
            }
        }
    }
    sums
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
    let largest = largest.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    let mut sums = [0f32; LANES];
    for chunk in chunks {
        for l in 0..LANES {
            chunk[l] = exp(chunk[l] - largest);
            sums[l] += chunk[l];
        }
    }
    (largest, reduce(sums))
}

/// `R` rows of `sum_j weights_j rows_j` over `j < n` in order; row `j` of `rows` starts at `j * stride`.
#[inline(always)]
fn weighted_rows<const D: usize, const R: usize>(
    weights: [&[f32]; R],
    n: usize,
    rows: &[f32],
    stride: usize,
) -> [[f32; D]; R] {
    let mut sums = [[0f32; D]; R];
    let weights = weights.map(|w| &w[..n]);
    for j in 0..n {
        let Some(row) = rows[j * stride..].first_chunk::<D>() else { break };
        for r in 0..R {
            for d in 0..D {
                sums[r][d] = weights[r][j].mul_add(row[d], sums[r][d]);
            }
        }
    }
    sums
}

/// Buffers that one thread uses again for every sequence.
#[derive(Debug, Default)]
pub struct Scratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
    other: Vec<f32>,
    tile: Vec<f32>,
}

fn grown(buffer: &mut Vec<f32>, n: usize) -> &mut [f32] {
    if buffer.len() < n {
        buffer.resize(n, 0.0);
    }
    &mut buffer[..n]
}

/// `qkv (T, row)` rotated, sequences at `starts` (with the total at the end) -> `o (T, query * D)`, `lse (T, query)`.
pub fn forward(heads: Heads, qkv: &[f32], starts: &[u32], o: &mut [f32], lse: &mut [f32], scratch: &mut Scratch) {
    for pair in starts.windows(2) {
        let (start, end) = (pair[0] as usize, pair[1] as usize);
        let qkv = &qkv[start * heads.row()..end * heads.row()];
        let o = &mut o[start * heads.output()..end * heads.output()];
        let lse = &mut lse[start * heads.query..end * heads.query];
        for_size!(heads.size, forward_sequence(heads, qkv, o, lse, scratch));
    }
}

/// Copies one head's rows out of `qkv` into transposed blocks.
#[inline(always)]
fn transpose<const D: usize>(rows: &[f32], stride: usize, t: usize, out: &mut [f32]) {
    for j in 0..t {
        put_transposed(&rows[j * stride..][..D], j, out);
    }
}

/// Row `i` of a strided matrix as an array.
#[inline(always)]
fn row<const D: usize>(rows: &[f32], stride: usize, i: usize) -> &[f32; D] {
    match rows[i * stride..].first_chunk() {
        Some(row) => row,
        None => unreachable!("row {i} lies in the packed buffer"),
    }
}

/// A tile's query indexes: the last one stands in for those beyond the end.
#[inline(always)]
fn tile_rows(first: usize, t: usize) -> [usize; TILE] {
    std::array::from_fn(|r| (first + r).min(t - 1))
}

/// Scores of a tile of queries against the keys `0..=` its last query, into `TILE` rows of `width` values.
#[inline(always)]
fn score_tile<const D: usize>(queries: [&[f32; D]; TILE], keys: &[f32], width: usize, n: usize, scores: &mut [f32]) {
    for b in 0..blocks(n) {
        let block = score_block::<D, TILE>(queries, &keys[b * D * LANES..]);
        for r in 0..TILE {
            scores[r * width + b * LANES..][..LANES].copy_from_slice(&block[r]);
        }
    }
}

fn forward_sequence<const D: usize>(heads: Heads, qkv: &[f32], o: &mut [f32], lse: &mut [f32], scratch: &mut Scratch) {
    let (stride, group) = (heads.row(), heads.query / heads.key_value);
    let t = qkv.len() / stride;
    let width = blocks(t) * LANES;
    let scale = 1.0 / (D as f32).sqrt();
    let keys = grown(&mut scratch.keys, width * D);
    let scores = grown(&mut scratch.scores, TILE * width);
    vectorised(
        #[inline(always)]
        || {
            for kv in 0..heads.key_value {
                transpose::<D>(&qkv[(heads.query + kv) * D..], stride, t, keys);
                let values = &qkv[(heads.query + heads.key_value + kv) * D..];
                for head in kv * group..(kv + 1) * group {
                    for first in (0..t).step_by(TILE) {
                        let rows = tile_rows(first, t);
                        let n = rows[TILE - 1] + 1;
                        let width = blocks(n) * LANES;
                        score_tile::<D>(rows.map(|i| row(&qkv[head * D..], stride, i)), keys, width, n, scores);
                        let mut sums = [0f32; TILE];
                        for r in 0..TILE {
                            let (largest, sum) =
                                exponentiate(&mut scores[r * width..(r + 1) * width], rows[r] + 1, scale);
                            sums[r] = sum;
                            lse[rows[r] * heads.query + head] = largest + sum.ln();
                        }
                        let weights = std::array::from_fn(|r| &scores[r * width..(r + 1) * width]);
                        let outputs = weighted_rows::<D, TILE>(weights, n, values, stride);
                        for r in 0..TILE {
                            let scale = 1.0 / sums[r];
                            let out = &mut o[rows[r] * heads.output() + head * D..][..D];
                            for d in 0..D {
                                out[d] = outputs[r][d] * scale;
                            }
                        }
                    }
                }
            }
        },
    );
}

/// `do (T, query * D)` -> `dqkv (T, row)`, written. `qkv`, `o` and `lse` are those of [`forward`].
#[allow(clippy::too_many_arguments)]
pub fn backward(
    heads: Heads,
    qkv: &[f32],
    starts: &[u32],
    o: &[f32],
    lse: &[f32],
    d_o: &[f32],
    dqkv: &mut [f32],
    scratch: &mut Scratch,
) {
    dqkv.fill(0.0);
    for pair in starts.windows(2) {
        let (start, end) = (pair[0] as usize, pair[1] as usize);
        let sequence = Sequence {
            qkv: &qkv[start * heads.row()..end * heads.row()],
            o: &o[start * heads.output()..end * heads.output()],
            d_o: &d_o[start * heads.output()..end * heads.output()],
            lse: &lse[start * heads.query..end * heads.query],
        };
        let dqkv = &mut dqkv[start * heads.row()..end * heads.row()];
        for_size!(heads.size, backward_sequence(heads, &sequence, dqkv, scratch));
    }
}

/// What the backward reads of one sequence.
struct Sequence<'a> {
    qkv: &'a [f32],
    o: &'a [f32],
    d_o: &'a [f32],
    lse: &'a [f32],
}

fn backward_sequence<const D: usize>(heads: Heads, seq: &Sequence, dqkv: &mut [f32], scratch: &mut Scratch) {
    let stride = heads.row();
    let t = seq.qkv.len() / stride;
    let width = blocks(t) * LANES;
    let keys = grown(&mut scratch.keys, width * D);
    let values = grown(&mut scratch.values, width * D);
    let scores = grown(&mut scratch.scores, TILE * width);
    let d_scores = grown(&mut scratch.other, TILE * width);
    let d_kv = grown(&mut scratch.tile, 2 * t * D);
    let group = heads.query / heads.key_value;
    vectorised(
        #[inline(always)]
        || {
            for kv in 0..heads.key_value {
                let (key, value) = ((heads.query + kv) * D, (heads.query + heads.key_value + kv) * D);
                transpose::<D>(&seq.qkv[key..], stride, t, keys);
                transpose::<D>(&seq.qkv[value..], stride, t, values);
                d_kv.fill(0.0);
                let (d_key, d_value) = d_kv.split_at_mut(t * D);
                for head in kv * group..(kv + 1) * group {
                    for first in (0..t).step_by(TILE) {
                        let rows = tile_rows(first, t);
                        let n = rows[TILE - 1] + 1;
                        let live = (t - first).min(TILE);
                        let queries = rows.map(|i| row::<D>(&seq.qkv[head * D..], stride, i));
                        let d_os = rows.map(|i| row::<D>(&seq.d_o[head * D..], heads.output(), i));
                        let width = blocks(n) * LANES;
                        score_tile::<D>(queries, keys, width, n, scores);
                        score_tile::<D>(d_os, values, width, n, d_scores);
                        for r in 0..TILE {
                            let o = row::<D>(&seq.o[head * D..], heads.output(), rows[r]);
                            let lse = seq.lse[rows[r] * heads.query + head];
                            let (p, ds) = (&mut scores[r * width..][..width], &mut d_scores[r * width..][..width]);
                            let n = if r < live { rows[r] + 1 } else { 0 };
                            softmax_backward::<D>(p, ds, n, lse, o, d_os[r]);
                        }
                        let ds = std::array::from_fn(|r| &d_scores[r * width..][..width]);
                        let p = std::array::from_fn(|r| &scores[r * width..][..width]);
                        let d_query = weighted_rows::<D, TILE>(ds, n, &seq.qkv[key..], stride);
                        for r in 0..live {
                            dqkv[rows[r] * stride + head * D..][..D].copy_from_slice(&d_query[r]);
                        }
                        scatter_rows::<D>(ds, queries, n, d_key);
                        scatter_rows::<D>(p, d_os, n, d_value);
                    }
                }
                for j in 0..t {
                    dqkv[j * stride + key..][..D].copy_from_slice(&d_key[j * D..][..D]);
                    dqkv[j * stride + value..][..D].copy_from_slice(&d_value[j * D..][..D]);
                }
            }
        },
    );
}

/// In place: scores -> `p = exp(s - lse)`, and `do v` -> `ds = p (do v - do o) / sqrt(D)`; zero from `n` on.
#[inline(always)]
fn softmax_backward<const D: usize>(p: &mut [f32], ds: &mut [f32], n: usize, lse: f32, o: &[f32; D], d_o: &[f32; D]) {
    let scale = 1.0 / (D as f32).sqrt();
    let delta: f32 = super::vector::sum_by(D, |d| o[d] * d_o[d]);
    for i in 0..n {
        p[i] = exp(p[i].mul_add(scale, -lse));
        ds[i] = p[i] * (ds[i] - delta) * scale;
    }
    p[n..].fill(0.0);
    ds[n..].fill(0.0);
}

/// `out_j += sum_r weights_rj rows_r` for `j < n`.
#[inline(always)]
fn scatter_rows<const D: usize>(weights: [&[f32]; TILE], rows: [&[f32; D]; TILE], n: usize, out: &mut [f32]) {
    let (out, _) = out.as_chunks_mut::<D>();
    for (j, out) in out[..n].iter_mut().enumerate() {
        for r in 0..TILE {
            for d in 0..D {
                out[d] = weights[r][j].mul_add(rows[r][d], out[d]);
            }
        }
    }
}

/// One block of a row's cache: [`LANES`] positions of one layer, keys transposed `(key_value, D, LANES)`, then values
/// `(key_value, LANES, D)`.
pub fn cache_block_len(heads: Heads) -> usize {
    2 * LANES * heads.key_value * heads.size
}

/// Writes the keys and values of one row of `qkv` into slot `position % LANES` of its cache block.
pub fn put_in_cache(heads: Heads, qkv: &[f32], position: usize, block: &mut [f32]) {
    let size = heads.size;
    let (keys, values) = block.split_at_mut(LANES * heads.key_value * size);
    for kv in 0..heads.key_value {
        let key = &qkv[(heads.query + kv) * size..][..size];
        put_transposed(key, position % LANES, &mut keys[kv * size * LANES..][..size * LANES]);
    }
    for kv in 0..heads.key_value {
        let value = &qkv[(heads.query + heads.key_value + kv) * size..][..size];
        values[(kv * LANES + position % LANES) * size..][..size].copy_from_slice(value);
    }
}

/// One row's attention over its cached blocks, which hold positions `0..n` with the row's own last -> `o (query * D)`.
pub fn decode<'a>(
    heads: Heads,
    qkv: &[f32],
    n: usize,
    block: impl Fn(usize) -> &'a [f32] + Copy,
    o: &mut [f32],
    scratch: &mut Scratch,
) {
    for_size!(heads.size, decode_row(heads, qkv, n, block, o, scratch));
}

fn decode_row<'a, const D: usize>(
    heads: Heads,
    qkv: &[f32],
    n: usize,
    block: impl Fn(usize) -> &'a [f32] + Copy,
    o: &mut [f32],
    scratch: &mut Scratch,
) {
    let width = blocks(n) * LANES;
    let scale = 1.0 / (D as f32).sqrt();
    let group = heads.query / heads.key_value;
    let scores = grown(&mut scratch.scores, heads.query * width);
    let values_at = LANES * heads.key_value * D;
    vectorised(
        #[inline(always)]
        || {
            let (outputs, _) = o.as_chunks_mut::<D>();
            for b in 0..blocks(n) {
                let (keys, values) = block(b).split_at(values_at);
                let next = if b + 1 < blocks(n) { &block(b + 1)[..values_at] } else { &[] };
                let share = values_at / heads.query;
                for head in 0..heads.query {
                    // The values are read after all keys: their lines are on the way meanwhile.
                    prefetch(&values[head * share..][..share]);
                    if !next.is_empty() {
                        prefetch(&next[head * share..][..share]);
                    }
                    let keys = &keys[head / group * D * LANES..];
                    let sums = score_block::<D, 1>([row(qkv, D, head)], keys);
                    scores[head * width + b * LANES..][..LANES].copy_from_slice(&sums[0]);
                }
            }
            let mut sums = [1f32; MAX_QUERY_HEADS];
            for head in 0..heads.query {
                sums[head] = exponentiate(&mut scores[head * width..][..width], n, scale).1;
                outputs[head] = [0f32; D];
            }
            for b in 0..blocks(n) {
                let values = &block(b)[values_at..];
                for (head, output) in outputs.iter_mut().enumerate() {
                    let (values, _) = values[head / group * LANES * D..][..LANES * D].as_chunks::<D>();
                    let weights = &scores[head * width + b * LANES..][..(n - b * LANES).min(LANES)];
                    let mut total = *output;
                    for (weight, value) in weights.iter().zip(values) {
                        for d in 0..D {
                            total[d] = weight.mul_add(value[d], total[d]);
                        }
                    }
                    *output = total;
                }
            }
            for (output, sum) in outputs.iter_mut().zip(sums) {
                let scale = 1.0 / sum;
                output.iter_mut().for_each(|x| *x *= scale);
            }
        },
    );
}
