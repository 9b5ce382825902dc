//! The recurrence, forward: some columns of a head's state at a time go through all tokens of a sequence.

use std::cell::Cell;
use std::ops::Range;

use super::{Delta, Inputs, Tree};
use crate::matrix::MatrixMut;
use crate::team::Team;
use crate::vector::{ARCH, LANES, copy_row, grown};

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
pub(super) fn columns(s: Delta) -> impl Iterator<Item = (usize, usize)> {
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
        advance_head(s, inputs, head, tree.root.clone(), state, (first, Kept::Outputs), &mut o);
        for branch in &tree.branches {
            copy.copy_from_slice(state);
            advance_head(s, inputs, head, branch.clone(), copy, (first, Kept::Outputs), &mut o);
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
        advance_head(s, inputs, head, rows, state, (first, Kept::Outputs), &mut o);
    });
}

/// What is kept of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// What is read of the state after it.
    Outputs,
    /// What it writes.
    Errors,
}

/// One head through some rows, of which `kept` is left in `o`; row `first` is the first of `o`, and the columns of `state`
/// that go together lie end to end.
pub(super) fn advance_head(
    s: Delta,
    inputs: &Inputs,
    head: usize,
    rows: Range<usize>,
    state: &mut [f32],
    (first, kept): (usize, Kept),
    o: &mut MatrixMut,
) {
    let mut rest = state;
    for (column, registers) in columns(s) {
        let (own, others) = std::mem::take(&mut rest).split_at_mut(s.key * registers * LANES);
        rest = others;
        let piece = Piece { s, inputs, head, column, rows: rows.clone(), first, kept };
        ARCH.dispatch(Advance { piece, registers, state: own, o: o.reborrow() });
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
    kept: Kept,
}

/// A piece, and what it moves and writes.
struct Advance<'a> {
    piece: Piece<'a>,
    registers: usize,
    state: &'a mut [f32],
    o: MatrixMut<'a>,
}

impl pulp::WithSimd for Advance<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        // The same columns in as many registers as this machine's are.
        match (self.registers, S::F32_LANES) {
            (TOGETHER, 16) => self.rows::<S, 4>(simd),
            (TOGETHER, 8) => self.rows::<S, 8>(simd),
            (TOGETHER, 4) => self.rows::<S, 16>(simd),
            (TOGETHER, _) => self.rows::<S, 64>(simd),
            (_, 16) => self.rows::<S, 1>(simd),
            (_, 8) => self.rows::<S, 2>(simd),
            (_, 4) => self.rows::<S, 4>(simd),
            _ => self.rows::<S, 16>(simd),
        }
    }
}

impl Advance<'_> {
    #[inline(always)]
    fn rows<S: pulp::Simd, const R: usize>(mut self, simd: S) {
        let Piece { s, inputs, head, column, first, kept, .. } = self.piece;
        let (state, _) = S::as_mut_simd_f32s(self.state).0.as_chunks_mut::<R>();
        let ([query, key, value], width) = (places(s, head), (self.registers * LANES).min(s.value - column));
        for t in self.piece.rows {
            let row = &inputs.rows[t * s.channels()..][..s.channels()];
            let gates = &inputs.gates[t * s.gates()..][..s.gates()];
            let mut values = [0f32; TOGETHER * LANES];
            copy_row(&row[value.start + column..][..width], &mut values[..width]);
            let of_token = S::as_mut_simd_f32s(&mut values).0;
            let columns: [S::f32s; R] = std::array::from_fn(|r| of_token[r]);
            let factors = [gates[head], gates[s.value_heads + head]].map(|factor| simd.splat_f32s(factor));
            let [errors, outputs] = step(simd, state, &row[query.clone()], &row[key.clone()], factors, columns);
            of_token[..R].copy_from_slice(if kept == Kept::Errors { &errors } else { &outputs });
            copy_row(&values[..width], self.o.part(t - first, column..column + width));
        }
    }
}

/// One token: moves the columns of the state, of which `values` are its values. Returns what it writes and its outputs.
#[inline(always)]
fn step<S: pulp::Simd, const R: usize>(
    simd: S,
    state: &mut [[S::f32s; R]],
    query: &[f32],
    key: &[f32],
    [decay, rate]: [S::f32s; 2],
    values: [S::f32s; R],
) -> [[S::f32s; R]; 2] {
    let mut known = [simd.splat_f32s(0.0); R];
    for (row, &k) in state.iter_mut().zip(key) {
        let k = simd.splat_f32s(k);
        for r in 0..R {
            row[r] = simd.mul_f32s(row[r], decay);
            known[r] = simd.mul_add_f32s(row[r], k, known[r]);
        }
    }
    let mut error = known;
    for r in 0..R {
        error[r] = simd.mul_f32s(simd.sub_f32s(values[r], known[r]), rate);
    }
    let mut out = [simd.splat_f32s(0.0); R];
    for (row, (&k, &q)) in state.iter_mut().zip(key.iter().zip(query)) {
        let (k, q) = (simd.splat_f32s(k), simd.splat_f32s(q));
        for r in 0..R {
            row[r] = simd.mul_add_f32s(error[r], k, row[r]);
            out[r] = simd.mul_add_f32s(row[r], q, out[r]);
        }
    }
    [error, out]
}
