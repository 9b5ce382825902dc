//! A matrix laid out for products. A matrix that is trained is packed from its rows whenever it has moved; of a frozen one
//! the panels are the only copy, in bf16 where its file is.

use std::cell::Cell;
use std::ops::Range;

use super::Precision;
use crate::bf16::{self, Operand, Unit};
use crate::product::{Epilogue, Left, Out, PANEL, Right, Shape, product};
use crate::vector::vectorised;

/// A weight matrix `(N, K)` laid out for [`PackedMatrix::forward`]: panels of `PANEL` outputs, each `(K, PANEL)`.
#[derive(Debug, Clone)]
pub struct PackedMatrix {
    panels: Panels,
    n: usize,
    k: usize,
}

#[derive(Debug, Clone)]
enum Panels {
    F32(Vec<f32>),
    /// Widened a panel at a time when it is used, to the very values that fp32 panels would hold.
    Bf16(Vec<half::bf16>),
    /// In the tiles of products of bf16 operands.
    Tiles(Operand),
}

thread_local! {
    // Used again by every product of a thread, as the product's own buffers are.
    static WIDENED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static TURNED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static LEFT: Cell<Operand> = const { Cell::new(Operand::EMPTY) };
}

/// Panels that a backward turns into rows at a time.
const PANELS_TURNED: usize = 4;

impl PackedMatrix {
    /// Packs `w (N, K)` for products of a precision.
    pub fn new(w: &[f32], k: usize, precision: Precision) -> Self {
        let n = w.len() / k;
        match precision {
            Precision::Fp32 => {
                let mut matrix = Self::zeros(n, k);
                matrix.put(0, w);
                matrix
            }
            Precision::Bf16 => {
                let mut tiles = Operand::EMPTY;
                tiles.right_of_rows(bf16::Matrix::whole(w, k));
                Self { panels: Panels::Tiles(tiles), n, k }
            }
        }
    }

    /// The same matrix for products of a precision. Nothing is done to what is ready for them.
    pub fn in_precision(self, precision: Precision) -> Self {
        let (n, k) = (self.n, self.k);
        if precision == Precision::Fp32 || matches!(self.panels, Panels::Tiles(_)) {
            return self;
        }
        let mut rows = vec![0f32; n * k];
        self.values(0..n * k, &mut rows);
        drop(self);
        Self::new(&rows, k, precision)
    }

    /// What its products are computed in.
    pub fn precision(&self) -> Precision {
        match self.panels {
            Panels::F32(_) | Panels::Bf16(_) => Precision::Fp32,
            Panels::Tiles(_) => Precision::Bf16,
        }
    }

    /// `(N, K)` zeros in fp32, for values to be put into.
    pub fn zeros(n: usize, k: usize) -> Self {
        Self { panels: Panels::F32(vec![0f32; n.div_ceil(PANEL) * PANEL * k]), n, k }
    }

    /// `(N, K)` zeros in bf16, for values to be put into.
    pub fn zeros_bf16(n: usize, k: usize) -> Self {
        Self { panels: Panels::Bf16(vec![half::bf16::ZERO; n.div_ceil(PANEL) * PANEL * k]), n, k }
    }

    /// Outputs (`N`).
    pub fn outputs(&self) -> usize {
        self.n
    }

    /// Inputs (`K`).
    pub fn inputs(&self) -> usize {
        self.k
    }

    /// Puts values where they belong, beginning with value `first` of `(N, K)`.
    pub fn put(&mut self, first: usize, values: &[f32]) {
        let mut left = values;
        for (at, count) in segments(self.k, first..first + values.len()) {
            let segment;
            (segment, left) = left.split_at(count);
            match &mut self.panels {
                Panels::F32(panels) => {
                    let to = panels[at..].iter_mut().step_by(PANEL);
                    to.zip(segment).for_each(|(to, value)| *to = *value);
                }
                Panels::Bf16(panels) => {
                    let to = panels[at..].iter_mut().step_by(PANEL);
                    to.zip(segment).for_each(|(to, value)| *to = half::bf16::from_f32(*value));
                }
                Panels::Tiles(_) => unreachable!("tiles are made of whole matrices"),
            }
        }
    }

    /// Writes the values `range` of `(N, K)` to `out`.
    pub fn values(&self, range: Range<usize>, out: &mut [f32]) {
        if let Panels::Tiles(tiles) = &self.panels {
            let k = self.k;
            out.iter_mut().zip(range).for_each(|(to, at)| *to = tiles.right_value(at / k, at % k));
            return;
        }
        let mut left = out;
        for (at, count) in segments(self.k, range) {
            let segment;
            (segment, left) = left.split_at_mut(count);
            match &self.panels {
                Panels::F32(panels) => {
                    segment.iter_mut().zip(panels[at..].iter().step_by(PANEL)).for_each(|(to, value)| *to = *value);
                }
                Panels::Bf16(panels) => {
                    let values = panels[at..].iter().step_by(PANEL);
                    segment.iter_mut().zip(values).for_each(|(to, value)| *to = value.to_f32());
                }
                Panels::Tiles(_) => {}
            }
        }
    }

    /// `y (T, N) = x (T, K) Wᵀ`, added to a bias or the residual stream.
    pub fn forward(&self, x: &[f32], y: &mut [f32], epilogue: Epilogue) {
        self.forward_columns(Left { values: x, row: self.k, inner: 1 }, x.len() / self.k, y, self.n, epilogue);
    }

    /// The same for `rows` rows of any layout, to the first `N` of every `row` values of `y`.
    pub(super) fn forward_columns(&self, x: Left, rows: usize, y: &mut [f32], row: usize, epilogue: Epilogue) {
        if let Panels::Tiles(tiles) = &self.panels {
            let mut left = LEFT.take();
            left.left_of_rows(bf16::Matrix { values: x.values, row: x.row, rows, width: self.k });
            bf16::product(Unit::of_this_machine(), &left, tiles, Out { values: y, row, epilogue });
            return LEFT.set(left);
        }
        for first in (0..self.n).step_by(PANEL) {
            let shape = Shape { m: rows, n: (self.n - first).min(PANEL), k: self.k };
            self.with_panel(first / PANEL, |panel| {
                let out = Out { values: &mut y[first..], row, epilogue: epilogue.at_column(first) };
                product(shape, x, Right { values: panel, row: PANEL }, out);
            });
        }
    }

    /// `dx (T, K) = dy (T, N) W`, whose rows are laid out again, a few panels at a time.
    pub fn backward_input(&self, dy: &[f32], dx: &mut [f32]) {
        if let Panels::Tiles(_) = &self.panels {
            let dy_rows = Left { values: dy, row: self.n, inner: 1 };
            let out = Out { values: dx, row: self.k, epilogue: Epilogue::None };
            return self.backward_columns(dy_rows, dy.len() / self.n, out);
        }
        let (n, k, mut turned) = (self.n, self.k, TURNED.take());
        turned.resize(PANELS_TURNED * PANEL * k, 0.0);
        for first in (0..n).step_by(PANELS_TURNED * PANEL) {
            let count = (n - first).min(PANELS_TURNED * PANEL);
            for (p, rows) in turned[..count.next_multiple_of(PANEL) * k].chunks_exact_mut(PANEL * k).enumerate() {
                self.with_panel(first / PANEL + p, |panel| turn(panel, k, rows));
            }
            let epilogue = if first == 0 { Epilogue::None } else { Epilogue::Accumulate };
            let left = Left { values: &dy[first..], row: n, inner: 1 };
            let shape = Shape { m: dy.len() / n, n: k, k: count };
            product(shape, left, Right { values: &turned, row: k }, Out { values: dx, row: k, epilogue });
        }
        TURNED.set(turned);
    }

    /// `rows` rows of any layout times a matrix in tiles.
    pub(super) fn backward_columns(&self, dy: Left, rows: usize, out: Out) {
        let Panels::Tiles(tiles) = &self.panels else { unreachable!("panels are turned by `backward_input`") };
        let mut left = LEFT.take();
        left.left_of_rows(bf16::Matrix { values: dy.values, row: dy.row, rows, width: self.n });
        bf16::product_turned(Unit::of_this_machine(), &left, tiles, out);
        LEFT.set(left);
    }

    /// Calls `use_it` with panel `p`, in fp32.
    fn with_panel(&self, p: usize, use_it: impl FnOnce(&[f32])) {
        let range = p * PANEL * self.k..(p + 1) * PANEL * self.k;
        match &self.panels {
            Panels::F32(panels) => use_it(&panels[range]),
            Panels::Bf16(panels) => {
                let mut widened = WIDENED.take();
                widened.resize(range.len(), 0.0);
                widen(&panels[range], &mut widened);
                use_it(&widened);
                WIDENED.set(widened);
            }
            Panels::Tiles(_) => unreachable!("tiles are not panels"),
        }
    }
}

/// Where the rows of `(N, K)` that values `range` touch lie in the panels: (first place, how many, [`PANEL`] apart).
fn segments(k: usize, range: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
    let rows = range.start / k..range.end.div_ceil(k);
    rows.map(move |row| {
        let (from, to) = (range.start.max(row * k), range.end.min((row + 1) * k));
        (row / PANEL * PANEL * k + (from - row * k) * PANEL + row % PANEL, to - from)
    })
}

/// bf16 is the upper half of fp32.
fn widen(from: &[half::bf16], to: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || to.iter_mut().zip(from).for_each(|(to, from)| *to = f32::from_bits(u32::from(from.to_bits()) << 16)),
    );
}

/// A panel `(K, PANEL)` to rows `(PANEL, K)`, in blocks that stay in the first cache.
fn turn(panel: &[f32], k: usize, rows: &mut [f32]) {
    const BLOCK: usize = 16;
    for (block, panel) in panel.chunks(BLOCK * PANEL).enumerate() {
        let width = panel.len() / PANEL;
        for (column, row) in rows.chunks_exact_mut(k).enumerate() {
            let to = &mut row[block * BLOCK..][..width];
            to.iter_mut().zip(panel[column..].iter().step_by(PANEL)).for_each(|(to, value)| *to = *value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reckon_datasets::Counted;

    fn random(seed: u64, n: usize) -> Vec<f32> {
        let mut random = Counted::new(&[seed]);
        (0..n).map(|_| half::bf16::from_f64(random.normal()).to_f32()).collect()
    }

    #[test]
    fn values_come_back_in_whatever_pieces_they_went_in() {
        for (n, k) in [(1, 5), (33, 7), (70, 3)] {
            let w = random(1, n * k);
            for mut matrix in [PackedMatrix::zeros(n, k), PackedMatrix::zeros_bf16(n, k)] {
                for (index, piece) in w.chunks(11).enumerate() {
                    matrix.put(11 * index, piece);
                }
                for range in [0..n * k, 2..3, n * k / 2..n * k] {
                    let mut out = vec![0f32; range.len()];
                    matrix.values(range.clone(), &mut out);
                    assert_eq!(out, w[range]);
                }
            }
        }
    }

    #[test]
    fn halved_panels_give_the_bits_of_whole_ones_and_both_the_gradient_of_rows() {
        for (t, n, k) in [(3, 40, 20), (9, 257, 33), (1, 128, 16)] {
            let (w, x, dy) = (random(1, n * k), random(2, t * k), random(3, t * n));
            let (whole, mut halved) = (PackedMatrix::new(&w, k, Precision::Fp32), PackedMatrix::zeros_bf16(n, k));
            halved.put(0, &w);
            let run = |matrix: &PackedMatrix| {
                let (mut y, mut dx) = (vec![f32::NAN; t * n], vec![f32::NAN; t * k]);
                matrix.forward(&x, &mut y, Epilogue::None);
                matrix.backward_input(&dy, &mut dx);
                (y, dx)
            };
            assert_eq!(run(&whole), run(&halved));
            let mut expected = vec![0f32; t * k];
            super::super::backward_input(&dy, &w, &mut expected, k);
            for (got, expected) in run(&halved).1.iter().zip(expected) {
                assert!((got - expected).abs() <= 1e-4 * (1.0 + expected.abs()), "{got}, not {expected}");
            }
        }
    }
}
