//! Attention over packed segments, forward and backward, a tile of queries of one head at a time.

pub mod device;

use std::ops::Range;

use super::{Heads, Scratch, Segment, exponentiate};
use crate::product::{Epilogue, Left, Out, Right, Shape, product};
use crate::vector::{LANES, copy_row, dot, exp, grown, vectorised};

/// Queries of a tile. More would compute more of what the causal mask throws away.
const TILE: usize = 16;

/// `qkv (T, row)` rotated, in segments that hold each of the `T` rows once -> `o (T, query * D)`, `lse (T, query)`.
pub fn forward(heads: Heads, qkv: &[f32], segments: &[Segment], o: &mut [f32], lse: &mut [f32], scratch: &mut Scratch) {
    for segment in with_rows(segments) {
        let o = &mut o[places(&segment.rows, heads.output())];
        let lse = &mut lse[places(&segment.rows, heads.query)];
        forward_segment(heads, qkv, segment, o, lse, scratch);
    }
}

/// A completion of one token has no row beside its prompt's.
fn with_rows(segments: &[Segment]) -> impl Iterator<Item = &Segment> {
    segments.iter().filter(|segment| !segment.rows.is_empty())
}

/// Where the values of `rows` lie, `width` to a row.
fn places(rows: &Range<usize>, width: usize) -> Range<usize> {
    rows.start * width..rows.end * width
}

/// Copies one head's keys or values, at value `at` of each row, to lie end to end, `(keys, D)`: rows far apart share few
/// sets of the first cache.
fn compact(heads: Heads, qkv: &[f32], segment: &Segment, at: usize, out: &mut [f32]) {
    let (prefix, own) = out.split_at_mut(segment.prefix.len() * heads.size);
    for (rows, out) in [(&segment.prefix, prefix), (&segment.rows, own)] {
        let rows = qkv[places(rows, heads.row())].chunks_exact(heads.row());
        vectorised(
            #[inline(always)]
            || {
                rows.zip(out.chunks_exact_mut(heads.size))
                    .for_each(|(row, out)| copy_row(&row[at..][..heads.size], out))
            },
        );
    }
}

/// The way back for gradients: those of the segment's rows are written; those of the prefix, which belongs to an earlier
/// segment and may be others' too, are added.
fn spread(heads: Heads, from: &[f32], segment: &Segment, at: usize, d_qkv: &mut [f32]) {
    let (prefix, own) = from.split_at(segment.prefix.len() * heads.size);
    let rows = d_qkv[places(&segment.prefix, heads.row())].chunks_exact_mut(heads.row());
    for (row, from) in rows.zip(prefix.chunks_exact(heads.size)) {
        row[at..].iter_mut().zip(from).for_each(|(sum, d)| *sum += d);
    }
    let rows = d_qkv[places(&segment.rows, heads.row())].chunks_exact_mut(heads.row());
    vectorised(
        #[inline(always)]
        || rows.zip(own.chunks_exact(heads.size)).for_each(|(row, from)| copy_row(from, &mut row[at..][..heads.size])),
    );
}

/// `rows (keys, D)` -> `out (D, width)`; columns beyond the last row are zero. A few rows at a time, so that they are
/// read from the first cache.
fn transpose(rows: &[f32], size: usize, width: usize, out: &mut [f32]) {
    let keys = rows.len() / size;
    for first in (0..keys).step_by(LANES) {
        let count = LANES.min(keys - first);
        for (d, out) in out.chunks_exact_mut(width).take(size).enumerate() {
            for (j, value) in out[first..first + count].iter_mut().enumerate() {
                *value = rows[(first + j) * size + d];
            }
        }
    }
    out.chunks_exact_mut(width).take(size).for_each(|out| out[keys..].fill(0.0));
}

/// A tile of queries of one head: which rows, and how many keys its last one sees.
#[derive(Clone, Copy)]
struct Tile {
    /// Among the segment's own rows.
    first: usize,
    rows: usize,
    /// Keys before the first query's own.
    before: usize,
    /// Keys up to the last query's own.
    n: usize,
    /// `n` rounded up to whole registers: what is computed of each row of scores.
    computed: usize,
    /// Distance between rows of scores.
    width: usize,
}

impl Tile {
    /// All tiles of a segment.
    fn all(segment: &Segment) -> impl Iterator<Item = Self> {
        let (prefix, t, width) = (segment.prefix.len(), segment.rows.len(), padded(segment));
        (0..t).step_by(TILE).map(move |first| {
            let (rows, before) = (TILE.min(t - first), prefix + first);
            let n = before + rows;
            Self { first, rows, before, n, computed: n.next_multiple_of(LANES), width }
        })
    }

    /// `scores (rows, computed) = queries (rows, D) transposed (D, width)`; queries begin `stride` apart.
    fn scores(self, queries: &[f32], stride: usize, transposed: &[f32], scores: &mut [f32]) {
        let shape = Shape { m: self.rows, n: self.computed, k: transposed.len() / self.width };
        let left = Left { values: &queries[self.first * stride..], row: stride, inner: 1 };
        let right = Right { values: transposed, row: self.width };
        product(shape, left, right, Out { values: scores, row: self.width, epilogue: Epilogue::None });
    }

    /// `out_i = sum_j weights_ij rows_j` for the tile's rows, from `rows (keys, D)`; rows of `out` begin `stride` apart.
    fn gather(self, size: usize, weights: &[f32], rows: &[f32], out: &mut [f32], stride: usize) {
        let shape = Shape { m: self.rows, n: size, k: self.n };
        let left = Left { values: weights, row: self.width, inner: 1 };
        let out = Out { values: &mut out[self.first * stride..], row: stride, epilogue: Epilogue::None };
        product(shape, left, Right { values: rows, row: size }, out);
    }

    /// `out_j += sum_i weights_ij rows_i` for all keys `j`, to `out (keys, D)`: the transpose of [`Tile::gather`].
    fn scatter(self, size: usize, weights: &[f32], rows: &[f32], stride: usize, out: &mut [f32]) {
        let shape = Shape { m: self.n, n: size, k: self.rows };
        let left = Left { values: weights, row: 1, inner: self.width };
        let right = Right { values: &rows[self.first * stride..], row: stride };
        product(shape, left, right, Out { values: out, row: size, epilogue: Epilogue::Accumulate });
    }
}

/// Keys of a segment, rounded up to whole registers.
fn padded(segment: &Segment) -> usize {
    segment.keys().next_multiple_of(LANES)
}

fn forward_segment(
    heads: Heads,
    qkv: &[f32],
    segment: &Segment,
    o: &mut [f32],
    lse: &mut [f32],
    scratch: &mut Scratch,
) {
    let (stride, size, outputs) = (heads.row(), heads.size, heads.output());
    let (own, width) = (&qkv[places(&segment.rows, stride)], padded(segment));
    let rows = grown(&mut scratch.rows, segment.keys() * size);
    let keys = grown(&mut scratch.keys, width * size);
    let scores = grown(&mut scratch.scores, TILE * width);
    for kv in 0..heads.key_value {
        compact(heads, qkv, segment, heads.key(kv), rows);
        transpose(rows, size, width, keys);
        compact(heads, qkv, segment, heads.value(kv), rows);
        for head in kv * heads.group()..(kv + 1) * heads.group() {
            for tile in Tile::all(segment) {
                let o = &mut o[head * size..];
                tile.scores(&own[head * size..], stride, keys, scores);
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
                let (largest, sum) = exponentiate(row, tile.before + r + 1, heads.scale());
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

/// `d_o (T, query * D)` -> `d_qkv (T, row)`, written. A segment whose rows are others' prefix comes before them.
pub fn backward(
    heads: Heads,
    kept: Forward,
    segments: &[Segment],
    d_o: &[f32],
    d_qkv: &mut [f32],
    scratch: &mut Scratch,
) {
    for segment in with_rows(segments) {
        backward_segment(heads, kept, segment, d_o, d_qkv, scratch);
    }
}

fn backward_segment(
    heads: Heads,
    kept: Forward,
    segment: &Segment,
    d_o: &[f32],
    d_qkv: &mut [f32],
    scratch: &mut Scratch,
) {
    let (stride, size, outputs) = (heads.row(), heads.size, heads.output());
    let own = Own {
        qkv: &kept.qkv[places(&segment.rows, stride)],
        o: &kept.o[places(&segment.rows, outputs)],
        lse: &kept.lse[places(&segment.rows, heads.query)],
        d_o: &d_o[places(&segment.rows, outputs)],
    };
    let (count, width) = (segment.keys() * size, padded(segment) * size);
    let rows = grown(&mut scratch.rows, count);
    let (keys, values) = (grown(&mut scratch.keys, width), grown(&mut scratch.values, width));
    let (d_keys, d_values) = (grown(&mut scratch.d_keys, count), grown(&mut scratch.d_values, count));
    let p = grown(&mut scratch.scores, TILE * padded(segment));
    let ds = grown(&mut scratch.d_scores, TILE * padded(segment));
    for kv in 0..heads.key_value {
        compact(heads, kept.qkv, segment, heads.value(kv), rows);
        transpose(rows, size, padded(segment), values);
        compact(heads, kept.qkv, segment, heads.key(kv), rows);
        transpose(rows, size, padded(segment), keys);
        d_keys.fill(0.0);
        d_values.fill(0.0);
        for head in kv * heads.group()..(kv + 1) * heads.group() {
            let (queries, d_o) = (&own.qkv[head * size..], &own.d_o[head * size..]);
            let d_queries = &mut d_qkv[segment.rows.start * stride + head * size..];
            for tile in Tile::all(segment) {
                tile.scores(queries, stride, keys, p);
                tile.scores(d_o, outputs, values, ds);
                softmax_backward(heads, tile, head, own, p, ds);
                tile.gather(size, ds, rows, d_queries, stride);
                tile.scatter(size, ds, queries, stride, d_keys);
                tile.scatter(size, p, d_o, outputs, d_values);
            }
        }
        spread(heads, d_keys, segment, heads.key(kv), d_qkv);
        spread(heads, d_values, segment, heads.value(kv), d_qkv);
    }
}

/// The rows of a segment in what [`backward`] reads.
#[derive(Clone, Copy)]
struct Own<'a> {
    qkv: &'a [f32],
    o: &'a [f32],
    lse: &'a [f32],
    d_o: &'a [f32],
}

/// In place: scores -> `p = exp(s - lse)`, and `do v` -> `ds = p (do v - do o) / sqrt(D)`; zero beyond a row's own key.
fn softmax_backward(heads: Heads, tile: Tile, head: usize, own: Own, p: &mut [f32], ds: &mut [f32]) {
    let (size, outputs, scale) = (heads.size, heads.output(), heads.scale());
    vectorised(
        #[inline(always)]
        || {
            for r in 0..tile.rows {
                let (row, key) = (tile.first + r, tile.before + r);
                let at = row * outputs + head * size;
                let delta = dot(&own.o[at..][..size], &own.d_o[at..][..size]);
                let lse = own.lse[row * heads.query + head];
                let p = &mut p[r * tile.width..][..tile.computed];
                let ds = &mut ds[r * tile.width..][..tile.computed];
                let (ps, _) = p.as_chunks_mut::<LANES>();
                let (dss, _) = ds.as_chunks_mut::<LANES>();
                for (p, ds) in ps.iter_mut().zip(dss).take(key / LANES + 1) {
                    for l in 0..LANES {
                        p[l] = exp(p[l].mul_add(scale, -lse));
                        ds[l] = p[l] * (ds[l] - delta) * scale;
                    }
                }
                p[key + 1..].fill(0.0);
                ds[key + 1..].fill(0.0);
            }
        },
    );
}
