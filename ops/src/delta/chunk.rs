//! Gradients of a few tokens of one head at a time, as products of small matrices.
//!
//! With `w_ts` the product of the decays behind token `s` up to token `t`, `A_t` that of all of the chunk up to `t`,
//! `F_t` that of all behind `t`, `S` the state before the chunk and `D` the gradient of the one after it, the formulas of
//! [`backward`](mod@super::backward) are sums over the tokens of the chunk and one product with `S` or `D`:
//!
//! `d_e_t = F_t Dᵀ k_t + sum of s >= t of w_st (q_s k_t) d_o_s - sum of s > t of w_st (k_s k_t) d_v_s`, from the last token
//! to the first, `d_q_t = A_t S d_o_t + sum of s <= t of w_ts (d_o_t e_s) k_s`, and `d_k_t` likewise; the gradient of the
//! logarithm of a decay is that of the next token's plus `q_t d_q_t - v_t d_v_t`, for what decays is all that is read
//! later, less what was written since.

use super::Delta;
use super::rule::columns;
use crate::matrix::MatrixMut;
use crate::product::{Epilogue, Left, Out, Right, Shape, product};
use crate::vector::{LANES, dot, grown, vectorised};

/// Tokens of a chunk. Products with states cost each token the same, those among tokens as much as there are.
pub(super) const CHUNK: usize = 32;

/// Values that one head's chunk is computed in.
pub(super) fn memory_of_chunk(s: Delta) -> usize {
    let (among, with_states) = (5 * CHUNK * CHUNK, 2 * s.key * s.value);
    among + with_states + CHUNK * (3 * s.key + 5 * s.value)
}

/// Some tokens of one head, and what their rows hold from the first token on.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'a> {
    pub(super) s: Delta,
    pub(super) count: usize,
    /// Queries, keys and values, in rows of all channels.
    pub(super) queries: &'a [f32],
    pub(super) keys: &'a [f32],
    pub(super) values: &'a [f32],
    /// Decays and rates of the head, in rows of all gates.
    pub(super) decays: &'a [f32],
    pub(super) rates: &'a [f32],
    /// What each writes `(count, Dv)`.
    pub(super) errors: &'a [f32],
    /// Gradients of the outputs, in rows of all heads.
    pub(super) d_o: &'a [f32],
}

/// Where the gradients of the tokens go, row by row from row `first` on.
pub(super) struct Gradients<'a, 'm> {
    pub(super) first: usize,
    /// Added to, because heads share them.
    pub(super) queries: &'a mut MatrixMut<'m>,
    pub(super) keys: &'a mut MatrixMut<'m>,
    /// Columns of the values, of the logarithms of decays and of those of rates that are this head's.
    pub(super) values: MatrixMut<'a>,
    pub(super) decays: MatrixMut<'a>,
    pub(super) rates: MatrixMut<'a>,
}

/// What it is computed in.
#[derive(Debug, Default)]
pub(super) struct Tile {
    /// `w (count, count)`, zero above the diagonal; `A` and `F`.
    weights: Vec<f32>,
    from_begin: [f32; CHUNK],
    to_end: [f32; CHUNK],
    /// Products among tokens, in rows of [`CHUNK`]: of queries and of keys with keys, and of gradients of outputs and of
    /// values with errors.
    scores: [Vec<f32>; 4],
    /// Keys `(Dk, CHUNK)` and errors `(Dv, CHUNK)`.
    transposed: [Vec<f32>; 2],
    /// State before and gradient behind `(Dv, Dk)`.
    states: [Vec<f32>; 2],
    /// Gradients of values, then the same and those of outputs, each times `A`, and errors times `F` `(count, Dv)`.
    rows: [Vec<f32>; 4],
    /// Gradients of queries and keys `(count, Dk)`.
    d: [Vec<f32>; 2],
}

impl Tile {
    /// Values that it has come to hold.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let Self { weights, scores, transposed, states, rows, d, .. } = self;
        let all = scores.iter().chain(transposed).chain(states).chain(rows).chain(d);
        weights.len() + all.map(Vec::len).sum::<usize>()
    }

    /// Turns `d (Dk, Dv)`, the gradient of the state `after` the tokens, into that of the state `before` them, and adds or
    /// writes those of the tokens.
    pub(super) fn backward(
        &mut self,
        tokens: Tokens,
        [before, after]: [&[f32]; 2],
        d: &mut [f32],
        out: &mut Gradients,
    ) {
        let s = tokens.s;
        self.weigh(tokens);
        let [state, end] = self.states.each_mut().map(|state| grown(state, s.key * s.value));
        transpose_state(s, before, state);
        transpose(d, s.value, (s.key, s.value), end, s.key);
        self.d_values(tokens, d, out);
        self.d_queries_and_keys(tokens);
        let behind = inner(s, after, d);
        self.write(tokens, behind, out);
        self.d_state(tokens, d);
    }

    /// The decays between any two tokens.
    fn weigh(&mut self, Tokens { s, count, decays, .. }: Tokens) {
        let weights = grown(&mut self.weights, CHUNK * CHUNK);
        for t in 0..count {
            let decay = decays[t * s.gates()];
            let (earlier, row) = weights.split_at_mut(t * CHUNK);
            row[..CHUNK].fill(0.0);
            if t > 0 {
                let last = &earlier[(t - 1) * CHUNK..];
                row.iter_mut().zip(&last[..t]).for_each(|(w, last)| *w = decay * last);
            }
            row[t] = 1.0;
            self.from_begin[t] = decays[0] * row[0];
        }
        self.to_end[..count].copy_from_slice(&weights[(count - 1) * CHUNK..][..count]);
    }

    /// Gradients of values, and of the logarithms of rates.
    fn d_values(&mut self, tokens: Tokens, d: &[f32], out: &mut Gradients) {
        let Tokens { s, count, queries, keys, rates, errors, d_o, .. } = tokens;
        let Self {
            weights,
            scores: [with_queries, with_keys, ..],
            transposed: [transposed, _],
            rows: [d_values, ..],
            ..
        } = self;
        let transposed = grown(transposed, s.key * CHUNK);
        transpose(keys, s.channels(), (count, s.key), transposed, CHUNK);
        let of = |rows| Left { values: rows, row: s.channels(), inner: 1 };
        among(count, s.key, of(queries), transposed, (weights, 0), with_queries);
        among(count, s.key, of(keys), transposed, (weights, 1), with_keys);
        let shape = Shape { m: count, n: s.value, k: s.key };
        let d_values = grown(d_values, CHUNK * s.value);
        product(shape, of(keys), Right::new(d, s.value), Out::new(d_values, s.value, Epilogue::None));
        scale(d_values, s.value, &self.to_end[..count]);
        let shape = Shape { m: count, n: s.value, k: count };
        let left = Left { values: with_queries, row: 1, inner: CHUNK };
        let right = Right::new(d_o, s.outputs());
        product(shape, left, right, Out::new(d_values, s.value, Epilogue::Accumulate));
        for t in (0..count).rev() {
            let (row, later) = d_values[t * s.value..count * s.value].split_at_mut(s.value);
            let rate = rates[t * s.gates()];
            let of_rate = vectorised(
                #[inline(always)]
                || {
                    let factors = with_keys[t * CHUNK + t..].iter().step_by(CHUNK).skip(1);
                    for (later, factor) in later.chunks_exact(s.value).zip(factors) {
                        let factor = -factor;
                        row.iter_mut().zip(later).for_each(|(d, later)| *d = later.mul_add(factor, *d));
                    }
                    let of_rate = dot(row, &errors[t * s.value..][..s.value]);
                    row.iter_mut().for_each(|d| *d *= rate);
                    of_rate
                },
            );
            out.rates.part(out.first + t, 0..1)[0] = of_rate;
        }
    }

    /// Gradients of queries and keys.
    fn d_queries_and_keys(&mut self, Tokens { s, count, queries, keys, errors, d_o, .. }: Tokens) {
        let Self { weights, scores: [_, _, outputs, values], transposed: [_, transposed], states, rows, d, .. } = self;
        let ([state, end], [d_queries, d_keys]) = (&*states, d.each_mut().map(|d| grown(d, CHUNK * s.key)));
        let [d_values, by_value, by_output, by_error] = rows;
        let transposed = grown(transposed, s.value * CHUNK);
        transpose(errors, s.value, (count, s.value), transposed, CHUNK);
        among(count, s.value, Left { values: d_o, row: s.outputs(), inner: 1 }, transposed, (weights, 0), outputs);
        among(count, s.value, Left { values: d_values, row: s.value, inner: 1 }, transposed, (weights, 1), values);
        times(d_o, s.outputs(), s.value, &self.from_begin[..count], grown(by_output, CHUNK * s.value));
        let negative = self.from_begin.map(|factor| -factor);
        times(d_values, s.value, s.value, &negative[..count], grown(by_value, CHUNK * s.value));
        times(errors, s.value, s.value, &self.to_end[..count], grown(by_error, CHUNK * s.value));
        let with_state = |rows: &[f32], state: &[f32], to: &mut [f32], epilogue| {
            let left = Left { values: rows, row: s.value, inner: 1 };
            let shape = Shape { m: count, n: s.key, k: s.value };
            product(shape, left, Right::new(state, s.key), Out::new(to, s.key, epilogue));
        };
        with_state(by_output, state, d_queries, Epilogue::None);
        with_state(by_value, state, d_keys, Epilogue::None);
        with_state(by_error, end, d_keys, Epilogue::Accumulate);
        let shape = Shape { m: count, n: s.key, k: count };
        let with_tokens = |values: &[f32], [row, inner]: [usize; 2], rows: &[f32], to: &mut [f32]| {
            let right = Right::new(rows, s.channels());
            product(shape, Left { values, row, inner }, right, Out::new(to, s.key, Epilogue::Accumulate));
        };
        with_tokens(outputs, [CHUNK, 1], keys, d_queries);
        with_tokens(outputs, [1, CHUNK], queries, d_keys);
        // What a token's value reads of earlier keys, and what later ones read of its: `-(N + Nᵀ)`.
        for t in 0..count {
            for earlier in 0..t {
                let value = -values[t * CHUNK + earlier];
                (values[t * CHUNK + earlier], values[earlier * CHUNK + t]) = (value, value);
            }
        }
        with_tokens(values, [CHUNK, 1], keys, d_keys);
    }

    /// Hands out the gradients of the tokens. `behind` is how the loss grows with the logarithm of the state after them.
    fn write(&self, Tokens { s, count, queries, values, .. }: Tokens, behind: f32, out: &mut Gradients) {
        let (mut of_decay, [d_queries, d_keys]) = (behind, &self.d);
        for t in (0..count).rev() {
            let row = out.first + t;
            let (query, value) = (&queries[t * s.channels()..][..s.key], &values[t * s.channels()..][..s.value]);
            let [d_query, d_key] = [d_queries, d_keys].map(|d| &d[t * s.key..][..s.key]);
            let d_value = &self.rows[0][t * s.value..][..s.value];
            let [to_query, to_key] = [&mut out.queries, &mut out.keys].map(|to| to.part(row, 0..s.key));
            let to_value = out.values.part(row, 0..s.value);
            of_decay += vectorised(
                #[inline(always)]
                || {
                    to_query.iter_mut().zip(d_query).for_each(|(to, d)| *to += d);
                    to_key.iter_mut().zip(d_key).for_each(|(to, d)| *to += d);
                    to_value.copy_from_slice(d_value);
                    dot(query, d_query) - dot(value, d_value)
                },
            );
            out.decays.part(row, 0..1)[0] = of_decay;
        }
    }

    /// `d` becomes the gradient of the state before the tokens.
    fn d_state(&self, Tokens { s, count, queries, keys, .. }: Tokens, d: &mut [f32]) {
        let decay = self.from_begin[count - 1];
        vectorised(
            #[inline(always)]
            || d.iter_mut().for_each(|d| *d *= decay),
        );
        let [_, by_value, by_output, _] = &self.rows;
        let shape = Shape { m: s.key, n: s.value, k: count };
        for (rows, factors) in [(queries, by_output), (keys, by_value)] {
            let left = Left { values: rows, row: 1, inner: s.channels() };
            product(shape, left, Right::new(factors, s.value), Out::new(d, s.value, Epilogue::Accumulate));
        }
    }
}

/// `out_ts = w_ts (rows_t times others_s)` of the tokens `s` that stand at least `apart` before `t`; `others` are
/// transposed.
fn among(
    count: usize,
    width: usize,
    rows: Left,
    others: &[f32],
    (weights, apart): (&[f32], usize),
    out: &mut Vec<f32>,
) {
    let out = grown(out, CHUNK * CHUNK);
    let shape = Shape { m: count, n: count, k: width };
    product(shape, rows, Right::new(others, CHUNK), Out::new(out, CHUNK, Epilogue::None));
    for (t, (out, weights)) in out.chunks_exact_mut(CHUNK).zip(weights.chunks_exact(CHUNK)).take(count).enumerate() {
        out.iter_mut().zip(weights).for_each(|(out, w)| *out *= w);
        out[t + 1 - apart..].fill(0.0);
    }
}

/// Multiplies each row by its factor.
fn scale(rows: &mut [f32], width: usize, factors: &[f32]) {
    for (row, factor) in rows.chunks_exact_mut(width).zip(factors) {
        row.iter_mut().for_each(|x| *x *= factor);
    }
}

/// Rows that begin `row` apart, each times its factor.
fn times(rows: &[f32], row: usize, width: usize, factors: &[f32], out: &mut [f32]) {
    for ((out, rows), factor) in out.chunks_exact_mut(width).zip(rows.chunks(row)).zip(factors) {
        out.iter_mut().zip(rows).for_each(|(out, x)| *out = factor * x);
    }
}

/// `rows (count, width)`, which begin `row` apart, to columns of `out`.
fn transpose(rows: &[f32], row: usize, (count, width): (usize, usize), out: &mut [f32], out_row: usize) {
    for (column, rows) in rows.chunks(row).take(count).enumerate() {
        for (to, x) in out[column..].iter_mut().step_by(out_row).zip(&rows[..width]) {
            *to = *x;
        }
    }
}

/// The columns of a state that lie end to end, their rows one behind the other: the first of each, how many they are, and
/// values from row to row.
fn blocks(s: Delta) -> impl Iterator<Item = (usize, usize, usize)> {
    columns(s).map(move |(first, registers)| (first, (registers * LANES).min(s.value - first), registers * LANES))
}

/// A state as it moves to `(Dv, Dk)`.
fn transpose_state(s: Delta, state: &[f32], out: &mut [f32]) {
    for (first, width, row) in blocks(s) {
        transpose(&state[first * s.key..], row, (s.key, width), &mut out[first * s.key..], s.key);
    }
}

/// The sum of the products of a state as it moves and `d (Dk, Dv)`, value by value.
fn inner(s: Delta, state: &[f32], d: &[f32]) -> f32 {
    let mut sum = 0.0;
    for (first, width, row) in blocks(s) {
        vectorised(
            #[inline(always)]
            || {
                for (state, d) in state[first * s.key..].chunks(row).zip(d.chunks(s.value)).take(s.key) {
                    sum += dot(&state[..width], &d[first..first + width]);
                }
            },
        );
    }
    sum
}
