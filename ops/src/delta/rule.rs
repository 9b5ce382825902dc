//! The recurrence, forward: some columns of a head's state at a time go through all tokens of a sequence.

use std::cell::Cell;
use std::ops::Range;

use super::{Delta, Inputs, Tree};
use crate::matrix::MatrixMut;
use crate::team::Team;
use crate::vector::{LANES, grown, vectorised};

/// Registers of columns that go together: with fewer, a multiply-add would wait for the one before it; with more, the
/// state of 128 keys would leave the first cache.
const TOGETHER: usize = 4;

thread_local! {
    // Used again by every head of a thread.
    static STATES: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Where in an `inputs` row a head's query, key and value lie.
pub(super) fn places(s: Delta, head: usize) -> [Range<usize>; 3] {
    let place = |start, len| start..start + len;
    let key = head / s.group() * s.key;
    [place(key, s.key), place(s.keys() + key, s.key), place(2 * s.keys() + head * s.value, s.value)]
}

/// The columns of a head that go together: the first of them, and how many registers they are.
fn columns(s: Delta) -> impl Iterator<Item = (usize, usize)> {
    let whole = s.columns() / LANES;
    let (together, alone) = (whole / TOGETHER, whole % TOGETHER);
    let wide = (0..together).map(|i| (i * TOGETHER * LANES, TOGETHER));
    wide.chain((0..alone).map(move |i| ((together * TOGETHER + i) * LANES, 1)))
}

/// The rows of `o (T, Hv Dv)` that are next, so many at a time, head by head.
fn next_heads<'o>(s: Delta, rest: &mut Option<MatrixMut<'o>>, rows: usize) -> Vec<MatrixMut<'o>> {
    let Some((own, others)) = rest.take().map(|all| all.split_rows(rows)) else { return Vec::new() };
    *rest = Some(others);
    own.columns(s.value).map(|(_, head)| head).collect()
}

/// Every head of each tree -> `o (T, Hv Dv)`.
pub(super) fn forward(team: &Team, s: Delta, inputs: &Inputs, trees: &[Tree], o: &mut [f32]) {
    let mut rest = Some(MatrixMut::new(o, s.outputs()));
    let mut pieces = Vec::new();
    for tree in trees {
        let heads = next_heads(s, &mut rest, tree.rows().len()).into_iter().enumerate();
        pieces.extend(heads.map(|(head, o)| (tree, head, o)));
    }
    team.each(pieces.into_iter(), |(tree, head, mut o)| {
        let mut states = STATES.take();
        let (state, copy) = grown(&mut states, 2 * s.head()).split_at_mut(s.head());
        state.fill(0.0);
        let first = tree.root.start;
        advance_head(s, inputs, head, tree.root.clone(), state, first, &mut o);
        for branch in &tree.branches {
            copy.copy_from_slice(state);
            advance_head(s, inputs, head, branch.clone(), copy, first, &mut o);
        }
        STATES.set(states);
    });
}

/// Every head of each run of rows, whose states move -> `o (T, Hv Dv)`.
pub(super) fn advance<'a>(
    team: &Team,
    s: Delta,
    inputs: &Inputs,
    runs: impl Iterator<Item = (Range<usize>, &'a mut [f32])>,
    o: &mut [f32],
) {
    let mut rest = Some(MatrixMut::new(o, s.outputs()));
    let mut pieces = Vec::new();
    for (rows, states) in runs {
        let heads = next_heads(s, &mut rest, rows.len()).into_iter().zip(states.chunks_exact_mut(s.head()));
        pieces.extend(heads.enumerate().map(|(head, (o, state))| (rows.clone(), head, state, o)));
    }
    team.each(pieces.into_iter(), |(rows, head, state, mut o)| {
        let first = rows.start;
        advance_head(s, inputs, head, rows, state, first, &mut o);
    });
}

/// One head through some rows; row `first` is the first of `o`, and the columns of `state` that go together lie end to
/// end.
fn advance_head(
    s: Delta,
    inputs: &Inputs,
    head: usize,
    rows: Range<usize>,
    state: &mut [f32],
    first: usize,
    o: &mut MatrixMut,
) {
    let mut rest = state;
    for (column, registers) in columns(s) {
        let (own, others) = std::mem::take(&mut rest).split_at_mut(s.key * registers * LANES);
        rest = others;
        let piece = Piece { s, inputs, head, column, rows: rows.clone(), first };
        match registers {
            TOGETHER => piece.advance::<TOGETHER>(own, o),
            _ => piece.advance::<1>(own, o),
        }
    }
}

/// Some columns of a head, from `column` on, over some rows.
struct Piece<'a> {
    s: Delta,
    inputs: &'a Inputs,
    head: usize,
    column: usize,
    rows: Range<usize>,
    first: usize,
}

impl Piece<'_> {
    fn advance<const N: usize>(&self, state: &mut [f32], o: &mut MatrixMut) {
        let state = state.as_chunks_mut::<LANES>().0.as_chunks_mut::<N>().0;
        let s = self.s;
        let [query, key, value] = places(s, self.head);
        let width = (N * LANES).min(s.value - self.column);
        let (channels, gates) = (s.channels(), s.gates());
        vectorised(
            #[inline(always)]
            || {
                for t in self.rows.clone() {
                    let row = &self.inputs.rows[t * channels..][..channels];
                    let gates = &self.inputs.gates[t * gates..][..gates];
                    let mut v = [[0f32; LANES]; N];
                    v.as_flattened_mut()[..width].copy_from_slice(&row[value.start + self.column..][..width]);
                    let factors = [gates[self.head], gates[s.value_heads + self.head]];
                    let out = step(state, &row[query.clone()], &row[key.clone()], v, factors);
                    let o = o.part(t - self.first, self.column..self.column + width);
                    o.copy_from_slice(&out.as_flattened()[..width]);
                }
            },
        );
    }
}

/// One token: moves the columns of the state, and returns their outputs.
#[inline(always)]
fn step<const N: usize>(
    state: &mut [[[f32; LANES]; N]],
    query: &[f32],
    key: &[f32],
    value: [[f32; LANES]; N],
    [decay, rate]: [f32; 2],
) -> [[f32; LANES]; N] {
    let (mut known, mut error, mut out) = ([[0f32; LANES]; N], [[0f32; LANES]; N], [[0f32; LANES]; N]);
    for (row, &k) in state.iter_mut().zip(key) {
        for n in 0..N {
            for l in 0..LANES {
                row[n][l] *= decay;
                known[n][l] = row[n][l].mul_add(k, known[n][l]);
            }
        }
    }
    for n in 0..N {
        for l in 0..LANES {
            error[n][l] = (value[n][l] - known[n][l]) * rate;
        }
    }
    for (row, (&k, &q)) in state.iter_mut().zip(key.iter().zip(query)) {
        for n in 0..N {
            for l in 0..LANES {
                row[n][l] = error[n][l].mul_add(k, row[n][l]);
                out[n][l] = row[n][l].mul_add(q, out[n][l]);
            }
        }
    }
    out
}
