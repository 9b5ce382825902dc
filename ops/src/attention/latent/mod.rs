//! Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434) in its absorbed form: every query head looks at one
//! latent of `L` values a token, beside which stand `R` values that are rotated.
//!
//! Head `h`'s keys are `Uₕ c` and its values `Vₕ c` of the latent `c`, where `Uₕ` and `Vₕ` are rows of one matrix. As
//! `q (Uₕ c) = (q Uₕ) c` and `sum p (Vₕ c) = Vₕ (sum p c)`, keys and values of heads are never made: attention is that
//! of one key head of `L + R` values, whose first `L` are also its value, in training as in decoding, so that both have
//! the same bits and a cache holds `L + R` values a token.

pub mod device;

use std::ops::Range;

use super::{Heads, exponentiate, with_scratch};
use crate::linear::{Columns, Linear};
use crate::product::{Epilogue, Left, Out, Right, Shape, product, product_in_one_chain};
use crate::rope::Parts;
use crate::team::Team;
use crate::vector::{LANES, copy_row, grown, vectorised};

/// The sizes of latent attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latent {
    /// Query heads (`H`).
    pub heads: usize,
    /// Values of a query that meet a key of its head.
    pub plain: usize,
    /// Values of a query that are rotated (`R`).
    pub rotated: usize,
    /// Values of a latent (`L`).
    pub rank: usize,
    /// Values of a head's output.
    pub value: usize,
}

impl Latent {
    /// The attention over latents. A row holds the absorbed queries, the key, and its latent again as the value.
    pub fn attention(&self) -> Heads {
        Heads { query: self.heads, key_value: 1, size: self.rank + self.rotated, value: self.rank }
    }

    /// Values in a row of queries.
    pub fn queries(&self) -> usize {
        self.heads * self.query()
    }

    /// Values in a row of outputs.
    pub fn outputs(&self) -> usize {
        self.heads * self.value
    }

    /// Values in a row of what is cached: a latent, and what of it is rotated.
    pub fn compressed(&self) -> usize {
        self.rank + self.rotated
    }

    /// Values of a query.
    fn query(&self) -> usize {
        self.plain + self.rotated
    }

    /// What in a row of the attention is rotated: of every query, and of the key behind them.
    pub fn rotated_parts(&self) -> Parts {
        Parts { first: self.rank, step: self.compressed(), count: self.heads + 1 }
    }

    /// What queries are multiplied by, so that scores come out as those of unabsorbed heads, times `factor`.
    pub fn query_factor(&self, factor: f64) -> f32 {
        (factor * (self.compressed() as f64 / self.query() as f64).sqrt()) as f32
    }

    /// The rows of the matrix that make a head's keys.
    fn keys(&self, head: usize) -> Range<usize> {
        let start = head * (self.plain + self.value);
        start..start + self.plain
    }

    /// The rows of the matrix that make a head's values.
    fn values(&self, head: usize) -> Range<usize> {
        let start = self.keys(head).end;
        start..start + self.value
    }
}

/// Some columns of rows: `values[at..]`, `row` apart.
fn left(values: &[f32], at: usize, row: usize) -> Left<'_> {
    Left { values: &values[at.min(values.len())..], row, inner: 1 }
}

/// `queries (T, H (plain + R))` and `compressed (T, L + R)` -> rows `(T, row)` of the attention, not yet rotated.
/// `expand` makes keys and values of latents.
pub fn absorb(team: &Team, s: Latent, expand: &Linear, queries: &[f32], compressed: &[f32], rows: &mut [f32]) {
    let (row, size, t) = (s.attention().row(), s.compressed(), compressed.len() / s.compressed());
    let out = Out::new(rows, row, Epilogue::None);
    team.each(out.columns(s.heads * size, size), |(first, out)| {
        let head = first / size;
        expand.times_window(s.keys(head), left(queries, head * s.query(), s.queries()), t, out);
    });
    let piece = team.piece(t);
    let inputs = queries.chunks(piece * s.queries()).zip(compressed.chunks(piece * size));
    team.each(rows.chunks_mut(piece * row).zip(inputs), |(rows, (queries, compressed))| {
        vectorised(
            #[inline(always)]
            || {
                let inputs = queries.chunks_exact(s.queries()).zip(compressed.chunks_exact(size));
                for (row, (queries, compressed)) in rows.chunks_exact_mut(row).zip(inputs) {
                    let (absorbed, shared) = row.split_at_mut(s.heads * size);
                    let heads = absorbed.chunks_exact_mut(size).zip(queries.chunks_exact(s.query()));
                    heads.for_each(|(to, query)| copy_row(&query[s.plain..], &mut to[s.rank..]));
                    let (key, value) = shared.split_at_mut(size);
                    copy_row(compressed, key);
                    copy_row(&compressed[..s.rank], value);
                }
            },
        );
    });
}

/// The backward of [`absorb`]: `d_rows (T, row)`, rotated back -> `d_queries` and `d_compressed`, written, and the
/// gradient of what is trained of `expand`.
pub fn absorb_backward(
    team: &Team,
    s: Latent,
    expand: &Linear,
    (queries, d_rows): (&[f32], &[f32]),
    d_queries: &mut [f32],
    d_compressed: &mut [f32],
    gradients: &mut [f32],
) {
    let (row, size, t) = (s.attention().row(), s.compressed(), d_compressed.len() / s.compressed());
    let out = Out::new(d_queries, s.queries(), Epilogue::None);
    team.each(out.columns(s.queries(), s.query()), |(first, out)| {
        let head = first / s.query();
        expand.forward_window(s.keys(head), left(d_rows, head * size, row), t, out);
    });
    for head in 0..s.heads {
        let columns = |values, at, row, width| Columns { values: left(values, at, row).values, row, width };
        let query = columns(queries, head * s.query(), s.queries(), s.plain);
        let d_absorbed = columns(d_rows, head * size, row, s.rank);
        expand.add_window_gradient(team, s.keys(head), d_absorbed, query, gradients);
    }
    let piece = team.piece(t);
    let outputs = d_queries.chunks_mut(piece * s.queries()).zip(d_compressed.chunks_mut(piece * size));
    team.each(d_rows.chunks(piece * row).zip(outputs), |(d_rows, (d_queries, d_compressed))| {
        let outputs = d_queries.chunks_exact_mut(s.queries()).zip(d_compressed.chunks_exact_mut(size));
        for (d_row, (d_queries, d_compressed)) in d_rows.chunks_exact(row).zip(outputs) {
            let (d_absorbed, d_shared) = d_row.split_at(s.heads * size);
            let heads = d_absorbed.chunks_exact(size).zip(d_queries.chunks_exact_mut(s.query()));
            heads.for_each(|(from, d_query)| d_query[s.plain..].copy_from_slice(&from[s.rank..]));
            let (d_key, d_value) = d_shared.split_at(size);
            d_compressed.copy_from_slice(d_key);
            d_compressed.iter_mut().zip(d_value).for_each(|(sum, d)| *sum += d);
        }
    });
}

/// Sums of latents `(T, H L)` -> outputs of heads `(T, H value)`.
pub fn expand(team: &Team, s: Latent, expand: &Linear, attended: &[f32], values: &mut [f32]) {
    let (row, t) = (s.heads * s.rank, values.len() / s.outputs());
    let out = Out::new(values, s.outputs(), Epilogue::None);
    team.each(out.columns(s.outputs(), s.value), |(first, out)| {
        let head = first / s.value;
        expand.forward_window(s.values(head), left(attended, head * s.rank, row), t, out);
    });
}

/// The backward of [`expand`]: `d_values (T, H value)` -> `d_attended (T, H L)`, written, and the gradient of what is
/// trained of the matrix.
pub fn expand_backward(
    team: &Team,
    s: Latent,
    expand: &Linear,
    (attended, d_values): (&[f32], &[f32]),
    d_attended: &mut [f32],
    gradients: &mut [f32],
) {
    let (row, t) = (s.heads * s.rank, d_values.len() / s.outputs());
    let out = Out::new(d_attended, row, Epilogue::None);
    team.each(out.columns(row, s.rank), |(first, out)| {
        let head = first / s.rank;
        expand.times_window(s.values(head), left(d_values, head * s.value, s.outputs()), t, out);
    });
    for head in 0..s.heads {
        let columns = |values, at, row, width| Columns { values: left(values, at, row).values, row, width };
        let attended = columns(attended, head * s.rank, row, s.rank);
        let d_values = columns(d_values, head * s.value, s.outputs(), s.value);
        expand.add_window_gradient(team, s.values(head), attended, d_values, gradients);
    }
}

/// Values a layer of a block of the cache: the key of each position.
pub fn block_len(s: Latent) -> usize {
    LANES * s.compressed()
}

/// Writes the key of one row of the attention into slot `position % LANES` of its block.
pub fn put(s: Latent, row: &[f32], position: usize, block: &mut [f32]) {
    let (size, slot) = (s.compressed(), position % LANES);
    block[slot * size..][..size].copy_from_slice(&row[s.heads * size..][..size]);
}

/// The attention of rows `(R, row)` over their cached positions, the first `lengths[r]` in the blocks that `block(r,
/// b)` has, the row's own position last -> `o (R, H L)`.
pub fn cached<'a>(
    team: &Team,
    s: Latent,
    rows: &[f32],
    lengths: &[usize],
    block: &(dyn Fn(usize, usize) -> &'a [f32] + Sync),
    o: &mut [f32],
) {
    let heads = s.attention();
    let rows = rows.chunks_exact(heads.row()).zip(o.chunks_exact_mut(heads.output())).zip(lengths);
    team.each(rows.enumerate(), |(r, ((row, o), &n))| decode(s, row, n, &|b| block(r, b), o));
}

/// One row's attention over positions `0..n`. Keys are laid end to end first: the products are those of packed
/// attention then, whose chains of multiply-adds go through all positions.
fn decode<'a>(s: Latent, row: &[f32], n: usize, block: &dyn Fn(usize) -> &'a [f32], o: &mut [f32]) {
    let (heads, size, width) = (s.heads, s.compressed(), n.next_multiple_of(LANES));
    with_scratch(|scratch| {
        let keys = grown(&mut scratch.keys, n * size);
        for (b, keys) in keys.chunks_mut(LANES * size).enumerate() {
            keys.copy_from_slice(&block(b)[..keys.len()]);
        }
        let queries = grown(&mut scratch.rows, size * heads);
        for (head, query) in row[..heads * size].chunks_exact(size).enumerate() {
            queries[head..].iter_mut().step_by(heads).zip(query).for_each(|(to, from)| *to = *from);
        }
        let by_position = grown(&mut scratch.values, n * heads);
        let out = Out::new(by_position, heads, Epilogue::None);
        product(Shape { m: n, n: heads, k: size }, left(keys, 0, size), Right::new(queries, heads), out);
        let scores = grown(&mut scratch.scores, heads * width);
        let sums = grown(&mut scratch.sums, heads);
        for (head, (scores, sum)) in scores.chunks_exact_mut(width).zip(sums.iter_mut()).enumerate() {
            scores.iter_mut().zip(by_position[head..].iter().step_by(heads)).for_each(|(to, score)| *to = *score);
            *sum = vectorised(
                #[inline(always)]
                || exponentiate(scores, n, s.attention().scale()).1,
            );
        }
        let out = Out::new(o, s.rank, Epilogue::None);
        product_in_one_chain(Shape { m: heads, n: s.rank, k: n }, left(scores, 0, width), Right::new(keys, size), out);
        for (o, sum) in o.chunks_exact_mut(s.rank).zip(sums) {
            let scale = 1.0 / *sum;
            o.iter_mut().for_each(|x| *x *= scale);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{Segment, packed};
    use reckon_datasets::Counted;

    #[test]
    fn a_row_over_the_cache_has_the_bits_of_the_packed_one_and_a_position_takes_one_latent() {
        let s = Latent { heads: 5, plain: 12, rotated: 6, rank: 20, value: 9 };
        let (heads, team) = (s.attention(), Team::alone());
        assert_eq!(block_len(s), LANES * 26);
        for t in [1, 15, 16, 17, 70, 1100] {
            let mut random = Counted::new(&[t as u64]);
            let mut rows: Vec<f32> = (0..t * heads.row()).map(|_| random.normal() as f32).collect();
            for row in rows.chunks_exact_mut(heads.row()) {
                row.copy_within(5 * 26..5 * 26 + 20, 6 * 26);
            }
            let (mut expected, mut lse) = (vec![0f32; t * heads.output()], vec![0f32; t * 5]);
            packed::forward(&team, heads, &rows, &[Segment::alone(0..t)], &mut expected, &mut lse);
            let mut blocks = vec![vec![f32::NAN; block_len(s)]; t.div_ceil(LANES)];
            let positions = rows.chunks_exact(heads.row()).zip(expected.chunks_exact(heads.output()));
            for (position, (row, expected)) in positions.enumerate() {
                put(s, row, position, &mut blocks[position / LANES]);
                if !(80..1000).contains(&position) {
                    let mut o = vec![f32::NAN; heads.output()];
                    cached(&team, s, row, &[position + 1], &|_, b| &blocks[b], &mut o);
                    assert_eq!(o, expected, "position {position} of {t}");
                }
            }
        }
    }
}
