//! Attention over packed segments, forward and backward, a tile of queries of one head at a time.

pub mod device;

use std::cell::Cell;
use std::ops::Range;

use super::{Heads, Scratch, Segment, exponentiate, with_scratch};
use crate::matrix::MatrixMut;
use crate::product::{Epilogue, Left, Out, Right, Shape, product, product_in_one_chain};
use crate::team::Team;
use crate::vector::{LANES, copy_row, dot, exp, grown, vectorised};

/// Queries of a tile. More would compute more of what the causal mask throws away.
const TILE: usize = 16;

/// `qkv (T, row)` rotated, in segments that hold each of the `T` rows once, in order -> `o (T, query heads)`, `lse (T,
/// query)`.
///
/// A segment's query heads that share keys are a piece of work.
pub fn forward(team: &Team, heads: Heads, qkv: &[f32], segments: &[Segment], o: &mut [f32], lse: &mut [f32]) {
    let outs = by_segment(segments, MatrixMut::new(o, heads.output()));
    let lses = by_segment(segments, MatrixMut::new(lse, heads.query));
    let pieces = outs.zip(lses).flat_map(|((segment, o), (_, lse))| {
        let parts = o.columns(heads.group() * heads.value).zip(lse.columns(heads.group()));
        parts.enumerate().map(move |(kv, ((_, o), (_, lse)))| (segment, kv, o, lse))
    });
    team.each(pieces, |(segment, kv, o, lse)| {
        with_scratch(|scratch| forward_heads(heads, qkv, segment, kv, o, lse, scratch));
    });
}

/// The rows of each segment that has some.
fn by_segment<'a, 's>(
    segments: &'s [Segment],
    all: MatrixMut<'a>,
) -> impl Iterator<Item = (&'s Segment, MatrixMut<'a>)> {
    let (mut rest, mut done) = (Some(all), 0);
    with_rows(segments).filter_map(move |segment| {
        assert_eq!(segment.rows.start, done, "segments hold each row once, in order");
        done = segment.rows.end;
        let (own, others) = rest.take()?.split_rows(segment.rows.len());
        rest = Some(others);
        Some((segment, own))
    })
}

/// A completion of one token has no row beside its prompt's.
fn with_rows(segments: &[Segment]) -> impl Iterator<Item = &Segment> {
    segments.iter().filter(|segment| !segment.rows.is_empty())
}

/// Where the values of `rows` lie, `width` to a row.
fn places(rows: &Range<usize>, width: usize) -> Range<usize> {
    rows.start * width..rows.end * width
}

/// Copies one head's keys or values, `size` from value `at` of each row on, to lie end to end, `(keys, size)`: rows far
/// apart share few sets of the first cache.
fn compact(heads: Heads, qkv: &[f32], segment: &Segment, at: usize, size: usize, out: &mut [f32]) {
    let (prefix, own) = out.split_at_mut(segment.prefix.len() * size);
    for (rows, out) in [(&segment.prefix, prefix), (&segment.rows, own)] {
        let rows = qkv[places(rows, heads.row())].chunks_exact(heads.row());
        vectorised(
            #[inline(always)]
            || rows.zip(out.chunks_exact_mut(size)).for_each(|(row, out)| copy_row(&row[at..][..size], out)),
        );
    }
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
        let right = Right::new(transposed, self.width);
        product(shape, left, right, Out::new(scores, self.width, Epilogue::None));
    }

    /// `out_i = sum_j weights_ij rows_j` for the tile's rows, from `rows (keys, D)`, to `D` columns of `out`.
    fn gather(self, size: usize, weights: &[f32], rows: &[f32], column: usize, out: &mut MatrixMut) {
        let shape = Shape { m: self.rows, n: size, k: self.n };
        let left = Left { values: weights, row: self.width, inner: 1 };
        let out = Out { matrix: out.reborrow(), epilogue: Epilogue::None }.part(self.first, column);
        product_in_one_chain(shape, left, Right::new(rows, size), out);
    }

    /// `out_j += sum_i weights_ij rows_i` for all keys `j`, to `out (keys, D)`: the transpose of [`Tile::gather`].
    fn scatter(self, size: usize, weights: &[f32], rows: &[f32], stride: usize, out: &mut [f32]) {
        let shape = Shape { m: self.n, n: size, k: self.rows };
        let left = Left { values: weights, row: 1, inner: self.width };
        let right = Right::new(&rows[self.first * stride..], stride);
        product(shape, left, right, Out::new(out, size, Epilogue::Accumulate));
    }
}

/// Keys of a segment, rounded up to whole registers.
fn padded(segment: &Segment) -> usize {
    segment.keys().next_multiple_of(LANES)
}

/// The heads of a segment that share the keys of head `kv`: `o (rows, group D)`, `lse (rows, group)`.
fn forward_heads(
    heads: Heads,
    qkv: &[f32],
    segment: &Segment,
    kv: usize,
    mut o: MatrixMut,
    mut lse: MatrixMut,
    scratch: &mut Scratch,
) {
    let (stride, Heads { size, value, .. }) = (heads.row(), heads);
    let (own, width) = (&qkv[places(&segment.rows, stride)], padded(segment));
    let rows = grown(&mut scratch.rows, segment.keys() * size.max(value));
    let keys = grown(&mut scratch.keys, width * size);
    let scores = grown(&mut scratch.scores, TILE * width);
    compact(heads, qkv, segment, heads.key(kv), size, rows);
    transpose(&rows[..segment.keys() * size], size, width, keys);
    compact(heads, qkv, segment, heads.value(kv), value, rows);
    for member in 0..heads.group() {
        let queries = &own[(kv * heads.group() + member) * size..];
        for tile in Tile::all(segment) {
            tile.scores(queries, stride, keys, scores);
            let sums = softmax(heads, tile, member, scores, &mut lse);
            tile.gather(value, scores, rows, member * value, &mut o);
            for (r, sum) in sums[..tile.rows].iter().enumerate() {
                let scale = 1.0 / sum;
                let o = o.part(tile.first + r, member * value..(member + 1) * value);
                o.iter_mut().for_each(|x| *x *= scale);
            }
        }
    }
}

/// Scores to unnormalised probabilities; returns their sums and leaves their log-sum-exps in column `member` of `lse`.
fn softmax(heads: Heads, tile: Tile, member: usize, scores: &mut [f32], lse: &mut MatrixMut) -> [f32; TILE] {
    let mut sums = [0f32; TILE];
    vectorised(
        #[inline(always)]
        || {
            for r in 0..tile.rows {
                let row = &mut scores[r * tile.width..][..tile.computed];
                let (largest, sum) = exponentiate(row, tile.before + r + 1, heads.scale());
                sums[r] = sum;
                lse.part(tile.first + r, member..member + 1)[0] = largest + sum.ln();
            }
        },
    );
    sums
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

thread_local! {
    // Used again by every backward of a thread.
    static OF_PREFIXES: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// `d_o (T, query * D)` -> `d_qkv (T, row)`, written. A segment whose rows are others' prefix comes before them.
///
/// Pieces of work are as in [`forward`]. What a segment adds to its prefix, which may be others' too, is kept apart
/// and added in the order of the segments when all are done.
pub fn backward(team: &Team, heads: Heads, kept: Forward, segments: &[Segment], d_o: &[f32], d_qkv: &mut [f32]) {
    let (Heads { size, value, .. }, kvs) = (heads, heads.key_value);
    let mut of_prefixes = OF_PREFIXES.take();
    let len = |segment: &Segment| segment.prefix.len() * (size + value);
    let mut rest = grown(&mut of_prefixes, with_rows(segments).map(|segment| kvs * len(segment)).sum());
    let rows = by_segment(segments, MatrixMut::new(d_qkv, heads.row()));
    let pieces = rows.flat_map(|(segment, d_qkv)| {
        let (d_queries, d_rest) = d_qkv.split_columns(heads.query * size);
        let (d_keys, d_values) = d_rest.split_columns(kvs * size);
        let parts = d_queries.columns(heads.group() * size).zip(d_keys.columns(size)).zip(d_values.columns(value));
        let pieces: Vec<_> = parts
            .enumerate()
            .map(|(kv, (((_, queries), (_, keys)), (_, values)))| {
                let (prefix, others) = std::mem::take(&mut rest).split_at_mut(len(segment));
                rest = others;
                (segment, kv, Gradients { queries, keys, values, prefix })
            })
            .collect();
        pieces
    });
    team.each(pieces, |(segment, kv, gradients)| {
        with_scratch(|scratch| backward_heads(heads, kept, segment, kv, d_o, gradients, scratch));
    });
    let mut of_prefix = of_prefixes.as_slice();
    for segment in with_rows(segments) {
        for kv in 0..kvs {
            for (at, size) in [(heads.key(kv), size), (heads.value(kv), value)] {
                let (from, others) = of_prefix.split_at(segment.prefix.len() * size);
                let rows = d_qkv[places(&segment.prefix, heads.row())].chunks_exact_mut(heads.row());
                for (row, from) in rows.zip(from.chunks_exact(size)) {
                    row[at..].iter_mut().zip(from).for_each(|(sum, d)| *sum += d);
                }
                of_prefix = others;
            }
        }
    }
    OF_PREFIXES.set(of_prefixes);
}

/// What the backward of the heads of a segment that share keys writes.
struct Gradients<'a> {
    /// `(rows, group D)`.
    queries: MatrixMut<'a>,
    /// `(rows, D)`.
    keys: MatrixMut<'a>,
    /// `(rows, values of a head)`.
    values: MatrixMut<'a>,
    /// Keys, then values, of the prefix.
    prefix: &'a mut [f32],
}

fn backward_heads(
    heads: Heads,
    kept: Forward,
    segment: &Segment,
    kv: usize,
    d_o: &[f32],
    mut gradients: Gradients,
    scratch: &mut Scratch,
) {
    let (stride, Heads { size, value, .. }, outputs) = (heads.row(), heads, heads.output());
    let own = Own {
        qkv: &kept.qkv[places(&segment.rows, stride)],
        o: &kept.o[places(&segment.rows, outputs)],
        lse: &kept.lse[places(&segment.rows, heads.query)],
        d_o: &d_o[places(&segment.rows, outputs)],
    };
    let (count, width) = (segment.keys(), padded(segment));
    let rows = grown(&mut scratch.rows, count * size.max(value));
    let (keys, values) = (grown(&mut scratch.keys, width * size), grown(&mut scratch.values, width * value));
    let (d_keys, d_values) = (grown(&mut scratch.d_keys, count * size), grown(&mut scratch.d_values, count * value));
    let p = grown(&mut scratch.scores, TILE * width);
    let ds = grown(&mut scratch.d_scores, TILE * width);
    compact(heads, kept.qkv, segment, heads.value(kv), value, rows);
    transpose(&rows[..count * value], value, width, values);
    compact(heads, kept.qkv, segment, heads.key(kv), size, rows);
    transpose(&rows[..count * size], size, width, keys);
    d_keys.fill(0.0);
    d_values.fill(0.0);
    for member in 0..heads.group() {
        let head = kv * heads.group() + member;
        let (queries, d_o) = (&own.qkv[head * size..], &own.d_o[head * value..]);
        for tile in Tile::all(segment) {
            tile.scores(queries, stride, keys, p);
            tile.scores(d_o, outputs, values, ds);
            softmax_backward(heads, tile, head, own, p, ds);
            tile.gather(size, ds, rows, member * size, &mut gradients.queries);
            tile.scatter(size, ds, queries, stride, d_keys);
            tile.scatter(value, p, d_o, outputs, d_values);
        }
    }
    let (of_keys, of_values) = gradients.prefix.split_at_mut(segment.prefix.len() * size);
    let parts = [(d_keys, of_keys, gradients.keys, size), (d_values, of_values, gradients.values, value)];
    for (from, prefix, own, size) in parts {
        let (of_prefix, of_own) = from.split_at(prefix.len());
        prefix.copy_from_slice(of_prefix);
        write_rows(of_own, size, own);
    }
}

/// Copies `from (rows, D)`.
fn write_rows(from: &[f32], size: usize, mut to: MatrixMut) {
    vectorised(
        #[inline(always)]
        || from.chunks_exact(size).enumerate().for_each(|(row, from)| copy_row(from, to.part(row, 0..size))),
    );
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
    let (size, outputs, scale) = (heads.value, heads.output(), heads.scale());
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
