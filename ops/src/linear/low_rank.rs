//! A low-rank addition to a frozen matrix (LoRA, Hu et al. 2021, arXiv:2106.09685): `y += s B (A x)`, `A (R, K)`, `B (N, R)`.
//!
//! A matrix of several outputs side by side, such as queries, keys and values, has an addition for some of them: their
//! `A`s lie side by side too and are one product; each `B` writes its own columns of `y`. Nothing is merged, so the matrix
//! keeps its bits and without the addition is what it was.

use std::cell::Cell;
use std::ops::Range;

use super::{Columns, Epilogue, Left, Out, PackedMatrix, Precision, Team, add_weight_gradient};

/// Where the parts of an addition lie in the adapter's values, and in their gradients.
#[derive(Debug, Clone)]
pub struct LowRankPlaces {
    /// All `A`s `(parts R, K)`.
    pub a: Range<usize>,
    /// The first output that each part adds to, and its `B (N, R)`.
    pub parts: Vec<(usize, Range<usize>)>,
}

/// A factor as it lies and as it is multiplied.
#[derive(Debug)]
pub(super) struct Factor<'a> {
    pub(super) rows: &'a [f32],
    pub(super) packed: PackedMatrix,
    pub(super) place: Range<usize>,
}

impl<'a> Factor<'a> {
    fn new(team: &Team, values: &'a [f32], place: &Range<usize>, k: usize, precision: Precision) -> Self {
        let rows = &values[place.clone()];
        Self { rows, packed: PackedMatrix::new(team, rows, k, precision), place: place.clone() }
    }

    /// `t` rows of `dy` times the factor, to the first `K` of every row of `out`.
    fn backward_input(&self, team: &Team, dy: Left, t: usize, out: Out) {
        self.packed.backward_columns(team, self.rows, dy, t, out);
    }
}

/// An addition, ready for products.
#[derive(Debug)]
pub struct LowRank<'a> {
    pub(super) a: Factor<'a>,
    pub(super) parts: Vec<(usize, Factor<'a>)>,
    pub(super) rank: usize,
    pub(super) scale: f32,
}

thread_local! {
    // Used again by every layer of a thread.
    static LORA_HIDDEN: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static D_LORA_HIDDEN: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

impl<'a> LowRank<'a> {
    /// The addition at `places` of `values`, of rank `R`, times `scale`, for products of a precision.
    pub fn new(values: &'a [f32], places: &LowRankPlaces, rank: usize, scale: f32, precision: Precision) -> Self {
        let (team, k) = (&Team::alone(), places.a.len() / (rank * places.parts.len()));
        let factor = |place: &Range<usize>, k| Factor::new(team, values, place, k, precision);
        let part = |(column, place): &(usize, Range<usize>)| (*column, factor(place, rank));
        let a = factor(&places.a, k);
        Self { a, parts: places.parts.iter().map(part).collect(), rank, scale }
    }

    /// Values between the factors, a token: `R` for each part.
    fn width(&self) -> usize {
        self.a.packed.outputs()
    }

    /// `s A x`.
    fn project(&self, team: &Team, x: &[f32], lora_hidden: &mut Vec<f32>) {
        lora_hidden.resize(x.len() / self.a.packed.inputs() * self.width(), 0.0);
        self.a.packed.forward(team, x, lora_hidden, Epilogue::None);
        lora_hidden.iter_mut().for_each(|value| *value *= self.scale);
    }

    /// The columns of part `index` in values between the factors.
    fn columns<'v>(&self, lora_hidden: &'v [f32], index: usize) -> Columns<'v> {
        Columns { values: &lora_hidden[index * self.rank..], row: self.width(), width: self.rank }
    }

    /// `x (T, K)` -> added to `y (T, n)`.
    pub(super) fn forward(&self, team: &Team, x: &[f32], y: &mut [f32], n: usize) {
        let (rows, mut lora_hidden) = (y.len() / n, LORA_HIDDEN.take());
        self.project(team, x, &mut lora_hidden);
        for (index, (column, b)) in self.parts.iter().enumerate() {
            let Columns { values, row, .. } = self.columns(&lora_hidden, index);
            let left = Left { values, row, inner: 1 };
            let out = Out::new(&mut y[*column..], n, Epilogue::Accumulate);
            b.packed.forward_columns(team, left, rows, out);
        }
        LORA_HIDDEN.set(lora_hidden);
    }

    /// `dh = s dy B`, the gradient of `A x`.
    fn project_back(&self, team: &Team, dy: &[f32], n: usize, d_lora_hidden: &mut Vec<f32>) {
        let (t, width) = (dy.len() / n, self.width());
        d_lora_hidden.resize(t * width, 0.0);
        for (index, (column, b)) in self.parts.iter().enumerate() {
            let left = Left { values: &dy[*column..], row: n, inner: 1 };
            let out = Out::new(&mut d_lora_hidden[index * self.rank..], width, Epilogue::None);
            b.backward_input(team, left, t, out);
        }
        d_lora_hidden.iter_mut().for_each(|value| *value *= self.scale);
    }

    /// `dy (T, n)` -> added to `dx (T, K)`: `dx += dh A`.
    pub(super) fn backward_input(&self, team: &Team, dy: &[f32], n: usize, dx: &mut [f32]) {
        let mut d_lora_hidden = D_LORA_HIDDEN.take();
        self.project_back(team, dy, n, &mut d_lora_hidden);
        let (t, k, width) = (dy.len() / n, self.a.packed.inputs(), self.width());
        let left = Left { values: &d_lora_hidden, row: width, inner: 1 };
        self.a.backward_input(team, left, t, Out::new(dx, k, Epilogue::Accumulate));
        D_LORA_HIDDEN.set(d_lora_hidden);
    }

    /// `dy (T, n)` -> added to the gradients of the factors: `dA += dhᵀ x`, and `dB += dyᵀ h` with `h = s A x`.
    pub(super) fn backward_weight(&self, team: &Team, x: &[f32], dy: &[f32], n: usize, gradients: &mut [f32]) {
        let (mut lora_hidden, mut d_lora_hidden) = (LORA_HIDDEN.take(), D_LORA_HIDDEN.take());
        self.project(team, x, &mut lora_hidden);
        self.project_back(team, dy, n, &mut d_lora_hidden);
        for (index, (column, b)) in self.parts.iter().enumerate() {
            let dy = Columns { values: &dy[*column..], row: n, width: b.packed.outputs() };
            let precision = b.packed.precision();
            add_weight_gradient(
                team,
                precision,
                dy,
                self.columns(&lora_hidden, index),
                &mut gradients[b.place.clone()],
            );
        }
        let all = |values, row| Columns { values, row, width: row };
        let (k, width) = (self.a.packed.inputs(), self.width());
        let (dh, precision) = (all(&d_lora_hidden, width), self.a.packed.precision());
        add_weight_gradient(team, precision, dh, all(x, k), &mut gradients[self.a.place.clone()]);
        LORA_HIDDEN.set(lora_hidden);
        D_LORA_HIDDEN.set(d_lora_hidden);
    }
}
