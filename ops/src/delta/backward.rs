//! The recurrence, backward. A state is kept for each chunk of a sequence, as the forward goes through it once more; then
//! chunk by chunk, the last first, all states of one are computed again, and the gradient of the state goes back through
//! them. With `D` the gradient of the state after a token and `d_o` that of its output:
//!
//! `D += q d_oᵀ`, `d_q = S d_o`, `d_e = Dᵀ k`, `d_v = b d_e`, `d_b = d_e (v - S'ᵀ k)`,
//! `d_k = D e - b S' d_e`, `D' = D - k (b d_e)ᵀ`, `d_a = sum of D' S_before`, and `a D'` is the gradient of the state before.

use std::cell::Cell;
use std::ops::Range;

use super::gates::{self, Gradients};
use super::rule::places;
use super::{Delta, Inputs, Tree, Weights, convolution, prepare, previous};
use crate::attention::Segment;
use crate::matrix::MatrixMut;
use crate::memory::sized;
use crate::team::Team;
use crate::vector::{dot, grown, vectorised};

/// Tokens of a chunk: with more, their states would leave the second cache.
const CHUNK: usize = 32;

/// What the backward works in.
#[derive(Debug, Default)]
pub struct Scratch {
    rows: Vec<f32>,
    gates: Vec<f32>,
}

impl Scratch {
    /// All that it has, to be given back.
    pub fn into_buffers(self) -> [Vec<f32>; 2] {
        [self.rows, self.gates]
    }
}

/// `d_o (T, Hv Dv)` -> the channels, rates and decays of `d_projected (T, row)`, written, and the gradients of what is
/// trained.
pub fn backward(
    team: &Team,
    s: Delta,
    weights: Weights,
    (projected, segments): (&[f32], &[Segment]),
    (inputs, scratch): (&mut Inputs, &mut Scratch),
    d_o: &[f32],
    (d_projected, mut gradients): (&mut [f32], Gradients),
) {
    prepare(team, s, weights, projected, segments, inputs);
    let t = projected.len() / s.row();
    let (d_rows, d_gates) = (sized(&mut scratch.rows, t * s.channels()), sized(&mut scratch.gates, t * s.gates()));
    d_rows.fill(0.0);
    let trees = Tree::all(segments);
    team.each(pieces(s, &trees, d_rows, d_gates), |mut piece| {
        let mut memory = MEMORY.take();
        for member in 0..s.group() {
            piece.head(s, inputs, member, d_o, &mut memory);
        }
        MEMORY.set(memory);
    });
    gates::backward(s, weights, projected, &inputs.gates, d_gates, d_projected, &mut gradients);
    let previous = previous(segments);
    convolution::backward(team, s, weights.taps, projected, &previous, d_rows, (d_projected, gradients.taps));
}

/// The value heads of a tree that share a key, and what their gradients are written to.
struct Piece<'a> {
    tree: &'a Tree,
    key_head: usize,
    queries: MatrixMut<'a>,
    keys: MatrixMut<'a>,
    values: MatrixMut<'a>,
    decays: MatrixMut<'a>,
    rates: MatrixMut<'a>,
}

fn pieces<'a>(
    s: Delta,
    trees: &'a [Tree],
    d_rows: &'a mut [f32],
    d_gates: &'a mut [f32],
) -> impl Iterator<Item = Piece<'a>> {
    let (mut rows, mut gates) = (MatrixMut::new(d_rows, s.channels()), MatrixMut::new(d_gates, s.gates()));
    let mut all = Vec::new();
    for tree in trees {
        let count = tree.rows().len();
        let ((own_rows, rest_rows), (own_gates, rest_gates)) = (rows.split_rows(count), gates.split_rows(count));
        (rows, gates) = (rest_rows, rest_gates);
        let (queries, rest) = own_rows.split_columns(s.keys());
        let (keys, values) = rest.split_columns(s.keys());
        let (decays, rates) = own_gates.split_columns(s.value_heads);
        let of_keys = queries.columns(s.key).zip(keys.columns(s.key)).zip(values.columns(s.group() * s.value));
        let of_gates = decays.columns(s.group()).zip(rates.columns(s.group()));
        for (key_head, (((queries, keys), values), (decays, rates))) in of_keys.zip(of_gates).enumerate() {
            let [queries, keys, values, decays, rates] = [queries, keys, values, decays, rates].map(|(_, part)| part);
            all.push(Piece { tree, key_head, queries, keys, values, decays, rates });
        }
    }
    all.into_iter()
}

thread_local! {
    // Used again by every piece of a thread.
    static MEMORY: Cell<Memory> = Cell::default();
}

/// States `(Dk, columns)` and rows of a state, of one head.
#[derive(Debug, Default)]
struct Memory {
    /// At the beginning of each chunk of the root, and of the branch at hand.
    chunks: [Vec<f32>; 2],
    /// Before each token of the chunk at hand.
    states: Vec<f32>,
    /// What each of them writes, and that over its rate.
    errors: Vec<f32>,
    /// Gradients of the states at the end of the root, and of the branch at hand.
    ends: [Vec<f32>; 2],
    /// The root's last state, and that of the branch at hand.
    moving: [Vec<f32>; 2],
}

impl Piece<'_> {
    /// One value head: the branches first, because they add to the gradient of the state at the end of the root.
    fn head(&mut self, s: Delta, inputs: &Inputs, member: usize, d_o: &[f32], memory: &mut Memory) {
        let (head, tree) = (self.key_head * s.group() + member, self.tree);
        let Memory { chunks: [of_root, of_branch], states, errors, ends, moving } = memory;
        let [end, branch_end] = ends.each_mut().map(|values| grown(values, s.head()));
        let [state, copy] = moving.each_mut().map(|values| grown(values, s.head()));
        let pass = Pass { s, inputs, head, member, d_o, first: tree.root.start };
        state.fill(0.0);
        end.fill(0.0);
        pass.forward(tree.root.clone(), state, of_root);
        for branch in &tree.branches {
            branch_end.fill(0.0);
            copy.copy_from_slice(state);
            pass.forward(branch.clone(), copy, of_branch);
            pass.backward(branch.clone(), of_branch, (states, errors), branch_end, self);
            end.iter_mut().zip(&*branch_end).for_each(|(sum, d)| *sum += d);
        }
        pass.backward(tree.root.clone(), of_root, (states, errors), end, self);
    }
}

/// One value head through sequences.
struct Pass<'a> {
    s: Delta,
    inputs: &'a Inputs,
    head: usize,
    member: usize,
    d_o: &'a [f32],
    /// The first row of the tree.
    first: usize,
}

/// What of a token enters.
struct Token<'a> {
    query: &'a [f32],
    key: &'a [f32],
    value: &'a [f32],
    decay: f32,
    rate: f32,
}

impl Pass<'_> {
    fn token(&self, t: usize) -> Token<'_> {
        let (s, [query, key, value]) = (self.s, places(self.s, self.head));
        let row = &self.inputs.rows[t * s.channels()..][..s.channels()];
        let gates = &self.inputs.gates[t * s.gates()..];
        let (decay, rate) = (gates[self.head], gates[s.value_heads + self.head]);
        Token { query: &row[query], key: &row[key], value: &row[value], decay, rate }
    }

    /// Moves `state` through the rows, and keeps what it is at the beginning of each chunk.
    fn forward(&self, rows: Range<usize>, state: &mut [f32], chunks: &mut Vec<f32>) {
        let (size, columns) = (self.s.head(), self.s.columns());
        let chunks = grown(chunks, rows.len().div_ceil(CHUNK) * size);
        let mut errors = vec![0f32; 2 * columns];
        for (chunk, first) in chunks.chunks_exact_mut(size).zip(rows.clone().step_by(CHUNK)) {
            chunk.copy_from_slice(state);
            for t in first..rows.end.min(first + CHUNK) {
                self.token(t).write(state, &mut errors);
            }
        }
    }

    /// Turns `d`, the gradient of the state after the rows, into that of the state before them.
    fn backward(
        &self,
        rows: Range<usize>,
        chunks: &[f32],
        (states, errors): (&mut Vec<f32>, &mut Vec<f32>),
        d: &mut [f32],
        out: &mut Piece,
    ) {
        let (size, columns) = (self.s.head(), self.s.columns());
        let (states, errors) = (grown(states, (CHUNK + 1) * size), grown(errors, CHUNK * 2 * columns));
        for (chunk, first) in rows.clone().step_by(CHUNK).enumerate().collect::<Vec<_>>().into_iter().rev() {
            let end = rows.end.min(first + CHUNK);
            states[..size].copy_from_slice(&chunks[chunk * size..][..size]);
            for (place, t) in (first..end).enumerate() {
                let (before, after) = states[place * size..][..2 * size].split_at_mut(size);
                after.copy_from_slice(before);
                self.token(t).write(after, &mut errors[place * 2 * columns..][..2 * columns]);
            }
            for (place, t) in (first..end).enumerate().rev() {
                let states = states[place * size..][..2 * size].split_at(size);
                self.token_backward(t, states, &errors[place * 2 * columns..][..2 * columns], d, out);
            }
        }
    }

    fn token_backward(&self, t: usize, states: (&[f32], &[f32]), errors: &[f32], d: &mut [f32], out: &mut Piece) {
        let (s, row, columns) = (self.s, t - self.first, self.s.columns());
        let mut d_o = vec![0f32; columns];
        d_o[..s.value].copy_from_slice(&self.d_o[t * s.outputs() + self.head * s.value..][..s.value]);
        let mut d_error = vec![0f32; columns];
        let (d_query, d_key) = (out.queries.part(row, 0..s.key), out.keys.part(row, 0..s.key));
        let (token, values) = (self.token(t), self.member * s.value..(self.member + 1) * s.value);
        let [d_decay, d_rate] = vectorised(
            #[inline(always)]
            || token.backward(states, errors, (&d_o, &mut d_error), d, [d_query, d_key]),
        );
        let d_values = out.values.part(row, values);
        d_values.iter_mut().zip(&d_error).for_each(|(d, d_error)| *d = token.rate * d_error);
        out.decays.part(row, self.member..self.member + 1)[0] = d_decay;
        out.rates.part(row, self.member..self.member + 1)[0] = d_rate;
    }
}

impl Token<'_> {
    /// Moves a state `(Dk, columns)`; leaves in `errors` what is written to it, and that over the rate.
    fn write(&self, state: &mut [f32], errors: &mut [f32]) {
        let columns = errors.len() / 2;
        let (written, plain) = errors.split_at_mut(columns);
        vectorised(
            #[inline(always)]
            || {
                plain.fill(0.0);
                plain[..self.value.len()].copy_from_slice(self.value);
                for (row, &k) in state.chunks_exact_mut(columns).zip(self.key) {
                    for (x, plain) in row.iter_mut().zip(plain.iter_mut()) {
                        *x *= self.decay;
                        *plain = (-*x).mul_add(k, *plain);
                    }
                }
                written.iter_mut().zip(plain.iter()).for_each(|(written, plain)| *written = plain * self.rate);
                for (row, &k) in state.chunks_exact_mut(columns).zip(self.key) {
                    row.iter_mut().zip(written.iter()).for_each(|(x, written)| *x = written.mul_add(k, *x));
                }
            },
        );
    }

    /// Adds to the gradients of query and key, leaves that of the error in `d_error`, and returns those of decay and rate.
    #[inline(always)]
    fn backward(
        &self,
        (before, after): (&[f32], &[f32]),
        errors: &[f32],
        (d_o, d_error): (&[f32], &mut [f32]),
        d: &mut [f32],
        [d_query, d_key]: [&mut [f32]; 2],
    ) -> [f32; 2] {
        let columns = d_o.len();
        let (written, plain) = errors.split_at(columns);
        let (rows, states) = (d.chunks_exact_mut(columns), after.chunks_exact(columns));
        let of_key = self.key.iter().zip(self.query).zip(d_query.iter_mut().zip(d_key.iter_mut()));
        for ((d, state), ((&k, &q), (d_query, d_key))) in rows.zip(states).zip(of_key) {
            *d_query += dot(state, d_o);
            d.iter_mut().zip(d_o).for_each(|(d, d_o)| *d = q.mul_add(*d_o, *d));
            d_error.iter_mut().zip(d.iter()).for_each(|(d_error, d)| *d_error = k.mul_add(*d, *d_error));
            *d_key += dot(d, written);
        }
        let d_rate = dot(d_error, plain);
        let mut d_decay = 0.0;
        let (rows, states) = (d.chunks_exact_mut(columns), before.chunks_exact(columns));
        for ((d, state), (&k, d_key)) in rows.zip(states).zip(self.key.iter().zip(d_key)) {
            *d_key -= self.rate * self.decay * dot(state, d_error);
            let factor = -k * self.rate;
            d.iter_mut().zip(d_error.iter()).for_each(|(d, d_error)| *d = d_error.mul_add(factor, *d));
            d_decay += dot(d, state);
            d.iter_mut().for_each(|d| *d *= self.decay);
        }
        [d_decay, d_rate]
    }
}
