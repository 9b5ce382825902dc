//! The recurrence, backward. As the forward goes through a sequence once more, its state is kept at the beginning of each
//! chunk, and of each token what it writes; then the gradient of the state goes back through the chunks, the last first.
//! With `D` the gradient of the state after a token and `d_o` that of its output:
//!
//! `D += q d_oᵀ`, `d_q = S d_o`, `d_e = Dᵀ k`, `d_v = b d_e`, `d_b = d_e (v - S'ᵀ k)`,
//! `d_k = D e - b S' d_e`, `D' = D - k (b d_e)ᵀ`, `d_a = sum of D' S_before`, and `a D'` is the gradient of the state before.
//!
//! What is computed is the same for all tokens of a chunk together ([`chunk`](super::chunk)). The forward is not computed in
//! that form, because a token must have the same bits when it is sampled; nothing has to equal a gradient to the bit.

use std::cell::Cell;
use std::ops::Range;

use super::chunk::{self, CHUNK, Tile, Tokens, memory_of_chunk};
use super::gates::{self, Gradients};
use super::rule::{self, Kept, places};
use super::{Delta, Inputs, Tree, Weights, convolution, prepare, previous};
use crate::attention::Segment;
use crate::matrix::MatrixMut;
use crate::memory::sized;
use crate::team::Team;
use crate::vector::grown;

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

/// Values that each thread holds, at most, where a sequence and one that goes on from it have so many tokens together.
pub fn memory_of_thread(s: Delta, tokens: usize) -> usize {
    let states = tokens / CHUNK + 2 * 2 + 1;
    states * s.head() + tokens * s.value + 2 * s.key * s.value + memory_of_chunk(s)
}

/// Of one head.
#[derive(Debug, Default)]
struct Memory {
    /// Of the root, and of the branch at hand.
    kept: [Past; 2],
    /// Gradients of the states at their ends `(Dk, Dv)`.
    ends: [Vec<f32>; 2],
    /// The state that moves.
    moving: Vec<f32>,
    tile: Tile,
}

/// What of a sequence is kept.
#[derive(Debug, Default)]
struct Past {
    /// States at the beginning of each chunk, and at the end.
    states: Vec<f32>,
    /// What each token writes `(rows, Dv)`.
    errors: Vec<f32>,
}

impl Piece<'_> {
    /// One value head: the branches first, because they add to the gradient of the state at the end of the root.
    fn head(&mut self, s: Delta, inputs: &Inputs, member: usize, d_o: &[f32], memory: &mut Memory) {
        let (head, tree) = (self.key_head * s.group() + member, self.tree);
        let Memory { kept: [root, branch], ends, moving, tile } = memory;
        let [end, branch_end] = ends.each_mut().map(|values| grown(values, s.key * s.value));
        let (state, pass) = (grown(moving, s.head()), Pass { s, inputs, head, member, d_o, first: tree.root.start });
        state.fill(0.0);
        end.fill(0.0);
        pass.forward(tree.root.clone(), state, root);
        for rows in &tree.branches {
            branch_end.fill(0.0);
            state.copy_from_slice(root.end(s, tree.root.len()));
            pass.forward(rows.clone(), state, branch);
            pass.backward(rows.clone(), branch, branch_end, tile, self);
            end.iter_mut().zip(&*branch_end).for_each(|(sum, d)| *sum += d);
        }
        pass.backward(tree.root.clone(), root, end, tile, self);
    }
}

/// Values that this thread holds.
#[cfg(test)]
pub(super) fn held() -> usize {
    let memory = MEMORY.take();
    let Memory { kept, ends, moving, tile } = &memory;
    let kept: usize = kept.iter().map(|past| past.states.len() + past.errors.len()).sum();
    let held = kept + ends.iter().map(Vec::len).sum::<usize>() + moving.len() + tile.len();
    MEMORY.set(memory);
    held
}

impl Past {
    /// The state after all of `rows` rows.
    fn end(&self, s: Delta, rows: usize) -> &[f32] {
        &self.states[rows.div_ceil(CHUNK) * s.head()..][..s.head()]
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

impl Pass<'_> {
    /// Moves `state` through the rows.
    fn forward(&self, rows: Range<usize>, state: &mut [f32], past: &mut Past) {
        let (s, size) = (self.s, self.s.head());
        let states = grown(&mut past.states, (rows.len().div_ceil(CHUNK) + 1) * size);
        let mut errors = MatrixMut::new(grown(&mut past.errors, rows.len() * s.value), s.value);
        let mut states = states.chunks_exact_mut(size);
        for (first, kept) in rows.clone().step_by(CHUNK).zip(states.by_ref()) {
            kept.copy_from_slice(state);
            let chunk = first..rows.end.min(first + CHUNK);
            rule::advance_head(s, self.inputs, self.head, chunk, state, (rows.start, Kept::Errors), &mut errors);
        }
        states.for_each(|kept| kept.copy_from_slice(state));
    }

    /// Turns `d`, the gradient of the state after the rows, into that of the state before them.
    fn backward(&self, rows: Range<usize>, past: &Past, d: &mut [f32], tile: &mut Tile, out: &mut Piece) {
        let (s, size) = (self.s, self.s.head());
        let errors = past.errors.chunks(CHUNK * s.value);
        let chunks = rows.clone().step_by(CHUNK).zip(past.states.windows(2 * size).step_by(size)).zip(errors);
        for ((first, states), errors) in chunks.collect::<Vec<_>>().into_iter().rev() {
            let tokens = self.tokens(first..rows.end.min(first + CHUNK), errors);
            let (before, after) = states.split_at(size);
            let mut out = chunk::Gradients {
                first: first - self.first,
                values: out.values.reborrow().split_columns(self.member * s.value).1,
                decays: out.decays.reborrow().split_columns(self.member).1,
                rates: out.rates.reborrow().split_columns(self.member).1,
                queries: &mut out.queries,
                keys: &mut out.keys,
            };
            tile.backward(tokens, [before, after], d, &mut out);
        }
    }

    fn tokens<'t>(&'t self, rows: Range<usize>, errors: &'t [f32]) -> Tokens<'t> {
        let (s, [query, key, value]) = (self.s, places(self.s, self.head));
        let inputs = &self.inputs.rows[rows.start * s.channels()..];
        let gates = &self.inputs.gates[rows.start * s.gates() + self.head..];
        Tokens {
            s,
            count: rows.len(),
            queries: &inputs[query.start..],
            keys: &inputs[key.start..],
            values: &inputs[value.start..],
            decays: gates,
            rates: &gates[s.value_heads..],
            errors,
            d_o: &self.d_o[rows.start * s.outputs() + self.head * s.value..],
        }
    }
}
