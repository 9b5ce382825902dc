//! Products with some of the rows of a layer's matrix: one head's part of a matrix that holds all heads. Operands are
//! rows of any layout, so that heads side by side need not be copied.

use std::cell::Cell;
use std::ops::Range;

use super::low_rank::Factor;
use super::{Columns, Linear, LowRank, PackedMatrix, Precision, Trained, add_weight_gradient};
use crate::product::{Epilogue, Left, Out, Right, Shape, product};
use crate::team::Team;
use crate::vector::grown;

thread_local! {
    // Used again by every product of a thread.
    static ROWS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static HIDDEN: Cell<[Vec<f32>; 2]> = const { Cell::new([Vec::new(), Vec::new()]) };
}

impl Linear<'_> {
    /// `y = x W[window]ᵀ` for `rows` rows, to the first columns of `y`, which is written. The matrix is one of fp32
    /// products.
    pub(crate) fn forward_window(&self, window: Range<usize>, x: Left, rows: usize, mut y: Out) {
        self.matrix.forward_window(window.clone(), x, rows, y.reborrow());
        if let Trained::LowRank(adapter) = &self.trained {
            adapter.forward_window(window, x, rows, y.adding());
        }
    }

    /// `y = x W[window]` for `rows` rows, to the first `K` columns of `y`, which is written.
    pub(crate) fn times_window(&self, window: Range<usize>, x: Left, rows: usize, mut y: Out) {
        let k = self.inputs();
        let shape = Shape { m: rows, n: k, k: window.len() };
        let values = window.start * k..window.end * k;
        match &self.trained {
            Trained::Matrix { rows: w, .. } => product(shape, x, Right::new(&w[values], k), y.reborrow()),
            Trained::Nothing | Trained::LowRank(_) => {
                let mut w = ROWS.take();
                self.matrix.values(values.clone(), grown(&mut w, values.len()));
                product(shape, x, Right::new(&w[..values.len()], k), y.reborrow());
                ROWS.set(w);
            }
        }
        if let Trained::LowRank(adapter) = &self.trained {
            adapter.times_window(window, x, rows, y.adding());
        }
    }

    /// `x (T, K)`, `dy (T, window)` -> the gradient of what is trained of those rows, added to `gradients`. For
    /// `y = x W[window]` the two change places.
    pub(crate) fn add_window_gradient(
        &self,
        team: &Team,
        window: Range<usize>,
        x: Columns,
        dy: Columns,
        gradients: &mut [f32],
    ) {
        match &self.trained {
            Trained::Nothing => {}
            Trained::Matrix { place, .. } => {
                let k = self.inputs();
                let place = place.start + window.start * k..place.start + window.end * k;
                add_weight_gradient(team, Precision::Fp32, dy, x, &mut gradients[place]);
            }
            Trained::LowRank(adapter) => adapter.add_window_gradient(team, window, x, dy, gradients),
        }
    }
}

impl PackedMatrix {
    fn forward_window(&self, window: Range<usize>, x: Left, rows: usize, mut y: Out) {
        let (mut begin, mut column) = (0, 0);
        for part in self.panels() {
            let end = begin + part.outputs();
            let own = window.start.clamp(begin, end) - begin..window.end.clamp(begin, end) - begin;
            if !own.is_empty() {
                part.forward_window(own.clone(), x, rows, y.reborrow().part(0, column));
            }
            (begin, column) = (end, column + own.len());
        }
    }
}

impl LowRank<'_> {
    /// The one `B` of an addition to a matrix that is one tensor.
    fn only(&self) -> &Factor<'_> {
        assert!(self.parts.len() == 1, "windows are of matrices that are one tensor");
        &self.parts[0].1
    }

    fn forward_window(&self, window: Range<usize>, x: Left, rows: usize, y: Out) {
        let [mut hidden, other] = HIDDEN.take();
        self.project_rows(x, rows, &mut hidden);
        let left = Left { values: &hidden, row: self.rank, inner: 1 };
        self.only().packed.forward_window(window, left, rows, y);
        HIDDEN.set([hidden, other]);
    }

    /// `s A x` of rows of any layout.
    fn project_rows(&self, x: Left, rows: usize, hidden: &mut Vec<f32>) {
        hidden.resize(rows * self.rank, 0.0);
        let out = Out::new(hidden, self.rank, Epilogue::None);
        self.a.packed.forward_columns(&Team::alone(), x, rows, out);
        hidden.iter_mut().for_each(|value| *value *= self.scale);
    }

    /// `s x B[window]` of rows of any layout.
    fn project_back_rows(&self, window: Range<usize>, x: Left, rows: usize, hidden: &mut Vec<f32>) {
        hidden.resize(rows * self.rank, 0.0);
        let (r, shape) = (self.rank, Shape { m: rows, n: self.rank, k: window.len() });
        let right = Right::new(&self.only().rows[window.start * r..window.end * r], r);
        product(shape, x, right, Out::new(hidden, r, Epilogue::None));
        hidden.iter_mut().for_each(|value| *value *= self.scale);
    }

    fn times_window(&self, window: Range<usize>, x: Left, rows: usize, y: Out) {
        let [mut hidden, other] = HIDDEN.take();
        self.project_back_rows(window, x, rows, &mut hidden);
        let (k, left) = (self.a.packed.inputs(), Left { values: &hidden, row: self.rank, inner: 1 });
        product(Shape { m: rows, n: k, k: self.rank }, left, Right::new(self.a.rows, k), y);
        HIDDEN.set([hidden, other]);
    }

    fn add_window_gradient(&self, team: &Team, window: Range<usize>, x: Columns, dy: Columns, gradients: &mut [f32]) {
        let ([mut hidden, mut d_hidden], rows) = (HIDDEN.take(), x.values.len().div_ceil(x.row));
        self.project_rows(Left { values: x.values, row: x.row, inner: 1 }, rows, &mut hidden);
        let left = Left { values: dy.values, row: dy.row, inner: 1 };
        self.project_back_rows(window.clone(), left, rows, &mut d_hidden);
        let all = |values| Columns { values, row: self.rank, width: self.rank };
        let (b, r) = (self.only().place.start, self.rank);
        let place = b + window.start * r..b + window.end * r;
        add_weight_gradient(team, Precision::Fp32, dy, all(&hidden), &mut gradients[place]);
        add_weight_gradient(team, Precision::Fp32, all(&d_hidden), x, &mut gradients[self.a.place.clone()]);
        HIDDEN.set([hidden, d_hidden]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::{LowRankPlaces, Panels, Stored};
    use reckon_datasets::Counted;

    fn draw(seed: u64, n: usize) -> Vec<f32> {
        let mut random = Counted::new(&[seed]);
        (0..n).map(|_| half::bf16::from_f64(random.normal()).to_f32()).collect()
    }

    fn near(got: &[f32], expected: &[f32], what: &str) {
        let far = got.iter().zip(expected).find(|(a, b)| (*a - *b).abs() > 1e-4 * (1.0 + b.abs()));
        assert!(got.len() == expected.len() && far.is_none(), "{what}: {far:?}");
    }

    /// Checks all three products of a window against those of a layer that has the window's rows alone.
    fn check(layer: &Linear, alone: &Linear, window: Range<usize>, what: &str) -> [Vec<f32>; 2] {
        let (team, t, k, n) = (&Team::alone(), 5, layer.inputs(), window.len());
        let (x, z) = (draw(7, t * k), draw(8, t * n));
        let left = |values, row| Left { values, row, inner: 1 };
        let (mut y, mut expected) = (vec![f32::NAN; t * n], vec![f32::NAN; t * n]);
        layer.forward_window(window.clone(), left(&x, k), t, Out::new(&mut y, n, Epilogue::None));
        alone.forward(team, &x, &mut expected, Epilogue::None);
        near(&y, &expected, what);
        let (mut y, mut expected) = (vec![f32::NAN; t * k], vec![f32::NAN; t * k]);
        layer.times_window(window.clone(), left(&z, n), t, Out::new(&mut y, k, Epilogue::None));
        alone.backward_input(team, &z, &mut expected);
        near(&y, &expected, what);
        let (mut gradients, mut expected) = (vec![0f32; 5000], vec![0f32; 5000]);
        let all = |values, row| Columns { values, row, width: row };
        layer.add_window_gradient(team, window, all(&x, k), all(&z, n), &mut gradients);
        alone.backward_weight(team, &x, &z, &mut expected);
        [gradients, expected]
    }

    #[test]
    fn a_window_computes_what_a_matrix_of_its_rows_does_trained_or_frozen_or_adapted() {
        let (n, k, rank, window) = (110, 20, 3, 40..101);
        let w = draw(1, n * k);
        let rows = window.start * k..window.end * k;
        let packed = |values: &[f32], stored| {
            let mut panels = Panels::zeros(stored, values.len() / k, k);
            panels.put(0, values);
            PackedMatrix::from(vec![panels])
        };
        for stored in [Stored::F32, Stored::Bf16] {
            let (whole, part) = (packed(&w, stored), packed(&w[rows.clone()], stored));
            let trained = Linear::trained(&whole, &w, 0..n * k);
            let alone = Linear::trained(&part, &w[rows.clone()], rows.clone());
            let [got, expected] = check(&trained, &alone, window.clone(), "trained");
            near(&got, &expected, "the gradient of a window lies where its rows do");
            let frozen = check(&Linear::frozen(&whole, None), &Linear::frozen(&part, None), window.clone(), "frozen");
            assert!(frozen[0].iter().all(|g| *g == 0.0));

            let values = draw(2, rank * k + n * rank);
            let a = 0..rank * k;
            let adapter = |b: Range<usize>| {
                LowRank::new(&values, &LowRankPlaces { a: a.clone(), parts: vec![(0, b)] }, rank, 0.5, Precision::Fp32)
            };
            let b = |rows: Range<usize>| a.end + rows.start * rank..a.end + rows.end * rank;
            let whole = Linear::frozen(&whole, Some(adapter(b(0..n))));
            let part = Linear::frozen(&part, Some(adapter(b(window.clone()))));
            let [got, expected] = check(&whole, &part, window.clone(), "adapted");
            near(&got, &expected, "the gradients of an adapter");
        }
    }
}
