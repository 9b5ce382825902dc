//! The gated delta net (Yang, Kautz and Hatamizadeh 2024, arXiv:2412.06464): attention whose past is one matrix a head.
//!
//! Of head `h`, the state `S (Dk, Dv)` is zero before a sequence. A token with key `k`, query `q` (both of length one,
//! the query then over `sqrt(Dk)`), value `v`, decay `a` and rate `b` makes
//!
//! `S' = a S`, `e = b (v - S'ᵀ k)`, `S = S' + k eᵀ`, `o = Sᵀ q`.
//!
//! Queries, keys and values come out of a short convolution over the last tokens of each channel and a silu
//! ([`convolution`]); `a = exp(-exp(A) softplus(x + t))` and `b = sigmoid(y)` of projections `x` and `y` ([`gates`]).
//!
//! The recurrence is computed token by token in training as in decoding, so that a token has the same bits however it is
//! reached: a column of `S` and its output are chains of multiply-adds over the key's values that no other column
//! enters. Columns that fit the first cache go through a whole sequence together ([`rule`]). The backward takes a
//! sequence in chunks, keeps a state for each ([`backward`](mod@backward)), and what lies within one is products of small
//! matrices ([`chunk`]).

mod backward;
mod chunk;
mod convolution;
pub mod device;
mod gates;
mod rule;

use std::ops::Range;

use crate::attention::Segment;
use crate::gate::Gates;
use crate::team::Team;
use crate::vector::LANES;

pub use backward::{Scratch, backward, memory_of_thread};
pub use gates::Gradients;

/// The sizes of a gated delta net.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delta {
    /// Heads of queries and keys.
    pub key_heads: usize,
    /// Heads of values, each with a state; a multiple of `key_heads`.
    pub value_heads: usize,
    /// Values of a query and of a key (`Dk`).
    pub key: usize,
    /// Values of a value (`Dv`).
    pub value: usize,
    /// Tokens that the convolution sees, its own among them (`W`).
    pub taps: usize,
}

impl Delta {
    /// Values of all queries, or of all keys.
    fn keys(&self) -> usize {
        self.key_heads * self.key
    }

    /// Values of all values, and of a row of outputs.
    pub fn outputs(&self) -> usize {
        self.value_heads * self.value
    }

    /// Channels of the convolution (`C`): queries, keys and values.
    pub fn channels(&self) -> usize {
        2 * self.keys() + self.outputs()
    }

    /// Decays and rates of a token.
    pub fn gates(&self) -> usize {
        2 * self.value_heads
    }

    /// Values in a row of what is projected: channels, output gates, then what rates and decays are made of.
    pub fn row(&self) -> usize {
        self.channels() + self.outputs() + self.gates()
    }

    /// Where in a projected row the gates of the outputs lie.
    pub fn output_gates(&self) -> Gates {
        Gates { row: self.row(), first: self.channels(), step: self.outputs(), count: 1, size: self.outputs() }
    }

    /// Where in a projected row that lies which rates are made of; that of decays is behind it.
    fn rates(&self) -> usize {
        self.channels() + self.outputs()
    }

    /// Value heads that share a key.
    fn group(&self) -> usize {
        self.value_heads / self.key_heads
    }

    /// Columns of a head's state, whole registers of them.
    fn columns(&self) -> usize {
        self.value.next_multiple_of(LANES)
    }

    /// Values of a head's state.
    fn head(&self) -> usize {
        self.key * self.columns()
    }

    /// Values that a sequence leaves for its next token: the state of each head, and what the convolution still sees.
    pub fn state(&self) -> usize {
        self.value_heads * self.head() + (self.taps - 1) * self.channels()
    }
}

/// What beside projections enters.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// Taps of each channel `(C, W)`, the oldest first.
    pub taps: &'a [f32],
    /// `A` of each value head.
    pub decay: &'a [f32],
    /// `t` of each value head.
    pub step: &'a [f32],
}

/// What of a layer is computed again where it is needed.
#[derive(Debug, Default)]
pub struct Inputs {
    /// Queries and keys of length one, and values `(T, C)`.
    pub rows: Vec<f32>,
    /// Decays, then rates `(T, 2 Hv)`.
    pub gates: Vec<f32>,
}

/// Rows of a sequence, and what it was left with by those before them, [`Delta::state`] values: all zero at its start.
#[derive(Debug)]
pub struct Run<'a> {
    /// In the order of the sequence.
    pub rows: Range<usize>,
    /// Becomes what the next rows begin with.
    pub state: &'a mut [f32],
}

/// A sequence and those that go on from its end: where its rows lie, and theirs.
#[derive(Debug)]
struct Tree {
    root: Range<usize>,
    branches: Vec<Range<usize>>,
}

impl Tree {
    /// Those of `segments`, which hold each row once, in order; a prefix is all of the last segment without one.
    fn all(segments: &[Segment]) -> Vec<Self> {
        let mut trees: Vec<Self> = Vec::new();
        for Segment { prefix, rows } in segments {
            match trees.last_mut().filter(|_| !prefix.is_empty()) {
                None => trees.push(Self { root: rows.clone(), branches: Vec::new() }),
                Some(tree) => {
                    assert_eq!(&tree.root, prefix, "a state is left at the end of a segment alone");
                    tree.branches.push(rows.clone());
                }
            }
        }
        trees
    }

    /// All its rows.
    fn rows(&self) -> Range<usize> {
        self.root.start..self.branches.last().map_or(self.root.end, |last| last.end)
    }
}

/// The row before each in its sequence.
fn previous(segments: &[Segment]) -> Vec<Option<usize>> {
    let of = |segment: &Segment| {
        let (first, before) = (segment.rows.start, segment.prefix.end.checked_sub(1));
        segment.rows.clone().map(move |row| if row == first { before } else { Some(row - 1) })
    };
    segments.iter().flat_map(of).collect()
}

/// The row so many before `row`, if the sequence has one.
fn earlier(previous: &[Option<usize>], row: usize, back: usize) -> Option<usize> {
    (0..back).try_fold(row, |row, _| previous[row])
}

/// `projected (T, row)` in segments -> `o (T, Hv Dv)`.
pub fn forward(
    team: &Team,
    s: Delta,
    weights: Weights,
    projected: &[f32],
    segments: &[Segment],
    inputs: &mut Inputs,
    o: &mut [f32],
) {
    prepare(team, s, weights, projected, segments, inputs);
    rule::forward(team, s, inputs, &Tree::all(segments), o);
}

/// What of [`forward`] is cheap to compute again.
fn prepare(team: &Team, s: Delta, weights: Weights, projected: &[f32], segments: &[Segment], inputs: &mut Inputs) {
    let previous = previous(segments);
    let before = |row, back| earlier(&previous, row, back).map(|row| &projected[row * s.row()..]);
    convolution::forward(team, s, weights.taps, projected, &before, &mut inputs.rows);
    gates::forward(s, weights, projected, &mut inputs.gates);
}

/// The same for rows that go on from states, which move with them.
pub fn advance(
    team: &Team,
    s: Delta,
    weights: Weights,
    projected: &[f32],
    mut runs: Vec<Run>,
    inputs: &mut Inputs,
    o: &mut [f32],
) {
    let recurrent = s.value_heads * s.head();
    let mut places = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        places.extend(run.rows.clone().map(|row| (index, row - run.rows.start)));
    }
    let before = |row: usize, back: usize| {
        let (run, place): (&Run, usize) = (&runs[places[row].0], places[row].1);
        Some(match place < back {
            true => &run.state[recurrent + (s.taps - 1 + place - back) * s.channels()..],
            false => &projected[(row - back) * s.row()..],
        })
    };
    convolution::forward(team, s, weights.taps, projected, &before, &mut inputs.rows);
    gates::forward(s, weights, projected, &mut inputs.gates);
    rule::advance(team, s, inputs, runs.iter_mut().map(|run| (run.rows.clone(), &mut run.state[..recurrent])), o);
    team.each(runs.into_iter(), |run| convolution::leave(s, projected, run.rows, &mut run.state[recurrent..]));
}

#[cfg(test)]
mod tests;
