//! Attention over packed sequences, forward and backward, a tile of queries of one head at a time.

use super::super::product::{Left, Onto, Out, Right, Shape, product};
use super::super::vector::{LANES, copy_row, dot, exp, grown, vectorised};
use super::{Heads, Scratch, exponentiate};

/// Queries of a tile. More would compute more of what the causal mask throws away.
const TILE: usize = 16;

/// `qkv (T, row)` rotated, sequences at `starts` (with the total at the end) -> `o (T, query * D)`, `lse (T, query)`.
pub fn forward(heads: Heads, qkv: &[f32], starts: &[u32], o: &mut [f32], lse: &mut [f32], scratch: &mut Scratch) {
    for pair in starts.windows(2) {
        let (start, end) = (pair[0] as usize, pair[1] as usize);
        let qkv = &qkv[start * heads.row()..end * heads.row()];
        let o = &mut o[start * heads.output()..end * heads.output()];
        let lse = &mut lse[start * heads.query..end * heads.query];
        forward_sequence(heads, qkv, o, lse, scratch);
    }
}

/// Copies one head's rows, which begin `stride` apart, to lie end to end, `(T, D)`: rows far apart share few sets of the
/// first cache.
fn compact(rows: &[f32], stride: usize, size: usize, out: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || rows.chunks(stride).zip(out.chunks_exact_mut(size)).for_each(|(row, out)| copy_row(&row[..size], out)),
    );
}

/// The reverse of [`compact`].
fn spread(compact: &[f32], size: usize, rows: &mut [f32], stride: usize) {
    vectorised(
        #[inline(always)]
        || {
            rows.chunks_mut(stride)
                .zip(compact.chunks_exact(size))
                .for_each(|(row, from)| copy_row(from, &mut row[..size]))
        },
    );
}

/// `rows (T, D)` -> `out (D, width)`; columns beyond the last row are zero. A few rows at a time, so that they are read
/// from the first cache.
fn transpose(rows: &[f32], size: usize, width: usize, out: &mut [f32]) {
    let t = rows.len() / size;
    for first in (0..t).step_by(LANES) {
        let count = LANES.min(t - first);
        for (d, out) in out.chunks_exact_mut(width).take(size).enumerate() {
            for (j, value) in out[first..first + count].iter_mut().enumerate() {
                *value = rows[(first + j) * size + d];
            }
        }
    }
    out.chunks_exact_mut(width).take(size).for_each(|out| out[t..].fill(0.0));
}

/// A tile of queries of one head: which rows, and how many keys its last one sees.
#[derive(Clone, Copy)]
struct Tile {
    first: usize,
    rows: usize,
    /// Keys up to the last query's own.
    n: usize,
    /// `n` rounded up to whole registers: what is computed of each row of scores.
    computed: usize,
    /// Distance between rows of scores.
    width: usize,
}

impl Tile {
    /// All tiles of a sequence of `t`.
    fn all(t: usize) -> impl Iterator<Item = Self> {
        (0..t).step_by(TILE).map(move |first| {
            let rows = TILE.min(t - first);
            let n = first + rows;
            Self { first, rows, n, computed: n.next_multiple_of(LANES), width: t.next_multiple_of(LANES) }
        })
    }

    /// `scores (rows, computed) = queries (rows, D) transposed (D, width)`; queries begin `stride` apart.
    fn scores(self, queries: &[f32], stride: usize, transposed: &[f32], scores: &mut [f32]) {
        let shape = Shape { m: self.rows, n: self.computed, k: transposed.len() / self.width };
        let left = Left { values: &queries[self.first * stride..], row: stride, inner: 1 };
        let right = Right { values: transposed, row: self.width };
        product(shape, left, right, Out { values: scores, row: self.width, onto: Onto::Nothing });
    }

    /// `out_i = sum_j weights_ij rows_j` for the tile's rows, from `rows (T, D)`; rows of `out` begin `stride` apart.
    fn gather(self, size: usize, weights: &[f32], rows: &[f32], out: &mut [f32], stride: usize) {
        let shape = Shape { m: self.rows, n: size, k: self.n };
        let left = Left { values: weights, row: self.width, inner: 1 };
        let out = Out { values: &mut out[self.first * stride..], row: stride, onto: Onto::Nothing };
        product(shape, left, Right { values: rows, row: size }, out);
    }

    /// `out_j += sum_i weights_ij rows_i` for all keys `j`, to `out (T, D)`: the transpose of [`Tile::gather`].
    fn scatter(self, size: usize, weights: &[f32], rows: &[f32], stride: usize, out: &mut [f32]) {
        let shape = Shape { m: self.n, n: size, k: self.rows };
        let left = Left { values: weights, row: 1, inner: self.width };
        let right = Right { values: &rows[self.first * stride..], row: stride };
        product(shape, left, right, Out { values: out, row: size, onto: Onto::Held });
    }
}

fn forward_sequence(heads: Heads, qkv: &[f32], o: &mut [f32], lse: &mut [f32], scratch: &mut Scratch) {
    let (stride, size, outputs) = (heads.row(), heads.size, heads.output());
    let t = qkv.len() / stride;
    let width = t.next_multiple_of(LANES);
    let rows = grown(&mut scratch.rows, t * size);
    let keys = grown(&mut scratch.keys, width * size);
    let scores = grown(&mut scratch.scores, TILE * width);
    for kv in 0..heads.key_value {
        compact(&qkv[heads.key(kv)..], stride, size, rows);
        transpose(rows, size, width, keys);
        compact(&qkv[heads.value(kv)..], stride, size, rows);
        for head in kv * heads.group()..(kv + 1) * heads.group() {
            let (queries, o) = (&qkv[head * size..], &mut o[head * size..]);
            for tile in Tile::all(t) {
                tile.scores(queries, stride, keys, scores);
                let mut sums = [0f32; TILE];
                softmax(heads, tile, scores, &mut sums, &mut lse[tile.first * heads.query + head..]);
                tile.gather(size, scores, rows, o, outputs);
                for (o, sum) in o[tile.first * outputs..].chunks_mut(outputs).zip(&sums[..tile.rows]) {
                    let scale = 1.0 / sum;
                    o[..size].iter_mut().for_each(|x| *x *= scale);
                }
            }
        }
    }
}

/// Scores to unnormalised probabilities, with their sums and log-sum-exps.
fn softmax(heads: Heads, tile: Tile, scores: &mut [f32], sums: &mut [f32; TILE], lse: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            for r in 0..tile.rows {
                let row = &mut scores[r * tile.width..][..tile.computed];
                let (largest, sum) = exponentiate(row, tile.first + r + 1, heads.scale());
                sums[r] = sum;
                lse[r * heads.query] = largest + sum.ln();
            }
        },
    );
}

/// What [`forward`] read and wrote, for [`backward`].
#[derive(Debug, Clone, Copy)]
pub struct Forward<'a> {
    /// `(T, row)`, rotated.
    pub qkv: &'a [f32],
    /// `(T, query * D)`.
    pub o: &'a [f32],
    /// `(T, query)`.
    pub lse: &'a [f32],
}

/// `d_o (T, query * D)` -> `d_qkv (T, row)`, written.
pub fn backward(heads: Heads, kept: Forward, starts: &[u32], d_o: &[f32], d_qkv: &mut [f32], scratch: &mut Scratch) {
    for pair in starts.windows(2) {
        let (start, end) = (pair[0] as usize, pair[1] as usize);
        let outputs = start * heads.output()..end * heads.output();
        let sequence = Forward {
            qkv: &kept.qkv[start * heads.row()..end * heads.row()],
            o: &kept.o[outputs.clone()],
            lse: &kept.lse[start * heads.query..end * heads.query],
        };
        let d_qkv = &mut d_qkv[start * heads.row()..end * heads.row()];
        backward_sequence(heads, sequence, &d_o[outputs], d_qkv, scratch);
    }
}

fn backward_sequence(heads: Heads, kept: Forward, d_o: &[f32], d_qkv: &mut [f32], scratch: &mut Scratch) {
    let (qkv, stride, size, outputs) = (kept.qkv, heads.row(), heads.size, heads.output());
    let t = qkv.len() / stride;
    let width = t.next_multiple_of(LANES);
    let rows = grown(&mut scratch.rows, t * size);
    let keys = grown(&mut scratch.keys, width * size);
    let values = grown(&mut scratch.values, width * size);
    let d_keys = grown(&mut scratch.d_keys, t * size);
    let d_values = grown(&mut scratch.d_values, t * size);
    let p = grown(&mut scratch.scores, TILE * width);
    let ds = grown(&mut scratch.d_scores, TILE * width);
    for kv in 0..heads.key_value {
        let (key, value) = (heads.key(kv), heads.value(kv));
        compact(&qkv[value..], stride, size, rows);
        transpose(rows, size, width, values);
        compact(&qkv[key..], stride, size, rows);
        transpose(rows, size, width, keys);
        d_keys.fill(0.0);
        d_values.fill(0.0);
        for head in kv * heads.group()..(kv + 1) * heads.group() {
            let (query, d_o) = (head * size, &d_o[head * size..]);
            for tile in Tile::all(t) {
                tile.scores(&qkv[query..], stride, keys, p);
                tile.scores(d_o, outputs, values, ds);
                softmax_backward(heads, tile, head, kept, d_o, p, ds);
                tile.gather(size, ds, rows, &mut d_qkv[query..], stride);
                tile.scatter(size, ds, &qkv[query..], stride, d_keys);
                tile.scatter(size, p, d_o, outputs, d_values);
            }
        }
        spread(d_keys, size, &mut d_qkv[key..], stride);
        spread(d_values, size, &mut d_qkv[value..], stride);
    }
}

/// In place: scores -> `p = exp(s - lse)`, and `do v` -> `ds = p (do v - do o) / sqrt(D)`; zero beyond a row's own key.
fn softmax_backward(heads: Heads, tile: Tile, head: usize, kept: Forward, d_o: &[f32], p: &mut [f32], ds: &mut [f32]) {
    let (size, outputs, scale) = (heads.size, heads.output(), heads.scale());
    vectorised(
        #[inline(always)]
        || {
            for r in 0..tile.rows {
                let row = tile.first + r;
                let o = &kept.o[row * outputs + head * size..][..size];
                let d_o = &d_o[row * outputs..][..size];
                let delta = dot(o, d_o);
                let lse = kept.lse[row * heads.query + head];
                let p = &mut p[r * tile.width..][..tile.computed];
                let ds = &mut ds[r * tile.width..][..tile.computed];
                let (ps, _) = p.as_chunks_mut::<LANES>();
                let (dss, _) = ds.as_chunks_mut::<LANES>();
                for (p, ds) in ps.iter_mut().zip(dss).take(row / LANES + 1) {
                    for l in 0..LANES {
                        p[l] = exp(p[l].mul_add(scale, -lse));
                        ds[l] = p[l] * (ds[l] - delta) * scale;
                    }
                }
                p[row + 1..].fill(0.0);
                ds[row + 1..].fill(0.0);
            }
        },
    );
}
