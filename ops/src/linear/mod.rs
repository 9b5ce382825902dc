//! `y = x Wᵀ (+ b)`, with `W` stored `(N, K)` as Hugging Face stores it; forward, and a backward that adds the gradient of
//! what is trained: the matrix, a low-rank addition to it, or nothing.

pub mod device;
mod low_rank;
mod packed;

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::Range;

pub use self::low_rank::{LowRank, LowRankPlaces};
pub use self::packed::PackedMatrix;
use super::bf16::{self, Operand, Unit};
pub use super::product::Epilogue;
use super::product::{Left, Out, Right, Shape, product};
use super::vector::vectorised;

/// What products are computed in; sums, and all that is no product, are fp32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Operands as they are.
    #[default]
    Fp32,
    /// Operands rounded to bf16: ten times as fast on a processor with AMX.
    Bf16,
}

/// A linear layer: its matrix, ready for products, and what of it is trained.
///
/// ```
/// use reckon_ops::linear::{Epilogue, Linear, Precision};
/// let w = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
/// let layer = Linear::trained(&w, 3, 0..6, Precision::Fp32);
/// let mut y = [0.0; 2];
/// layer.forward(&[1.0, 0.0, 1.0], &mut y, Epilogue::None);
/// assert_eq!(y, [4.0, 10.0]);
/// let (mut dx, mut gradients) = ([0.0; 3], [0.0; 6]);
/// layer.backward_input(&[1.0, 0.0], &mut dx);
/// layer.backward_weight(&[1.0, 0.0, 1.0], &[1.0, 0.0], &mut gradients);
/// assert_eq!((dx, gradients), ([1.0, 2.0, 3.0], [1.0, 0.0, 1.0, 0.0, 0.0, 0.0]));
/// ```
#[derive(Debug)]
pub struct Linear<'a> {
    matrix: Cow<'a, PackedMatrix>,
    trained: Trained<'a>,
}

#[derive(Debug)]
enum Trained<'a> {
    Nothing,
    /// The matrix, whose rows `(N, K)` are also there as they lie; its gradient is added at `place`.
    Matrix {
        rows: &'a [f32],
        place: Range<usize>,
    },
    LowRank(LowRank<'a>),
}

impl<'a> Linear<'a> {
    /// A matrix `(N, K)` that is trained: it is packed, and its gradient belongs at `place` of the gradients.
    pub fn trained(rows: &'a [f32], k: usize, place: Range<usize>, precision: Precision) -> Self {
        Self { matrix: Cow::Owned(PackedMatrix::new(rows, k, precision)), trained: Trained::Matrix { rows, place } }
    }

    /// A matrix that stays as it is, with what is added to it.
    pub fn frozen(matrix: &'a PackedMatrix, adapter: Option<LowRank<'a>>) -> Self {
        Self { matrix: Cow::Borrowed(matrix), trained: adapter.map_or(Trained::Nothing, Trained::LowRank) }
    }

    /// Outputs (`N`).
    pub fn outputs(&self) -> usize {
        self.matrix.outputs()
    }

    /// Inputs (`K`).
    pub fn inputs(&self) -> usize {
        self.matrix.inputs()
    }

    /// `x (T, K)` -> `y (T, N)`, added to a bias or the residual stream.
    pub fn forward(&self, x: &[f32], y: &mut [f32], epilogue: Epilogue) {
        self.matrix.forward(x, y, epilogue);
        if let Trained::LowRank(adapter) = &self.trained {
            adapter.forward(x, y, self.outputs());
        }
    }

    /// `dy (T, N)` -> `dx (T, K)`, written.
    pub fn backward_input(&self, dy: &[f32], dx: &mut [f32]) {
        match &self.trained {
            Trained::Matrix { rows, .. } if self.matrix.precision() == Precision::Fp32 => {
                backward_input(dy, rows, dx, self.inputs());
            }
            Trained::Matrix { .. } | Trained::Nothing => self.matrix.backward_input(dy, dx),
            Trained::LowRank(adapter) => {
                self.matrix.backward_input(dy, dx);
                adapter.backward_input(dy, self.outputs(), dx);
            }
        }
    }

    /// `x (T, K)`, `dy (T, N)` -> the gradient of what is trained, added to `gradients`.
    pub fn backward_weight(&self, x: &[f32], dy: &[f32], gradients: &mut [f32]) {
        match &self.trained {
            Trained::Matrix { place, .. } => {
                let all = |values, row| Columns { values, row, width: row };
                let (dy, x) = (all(dy, self.outputs()), all(x, self.inputs()));
                add_weight_gradient(self.matrix.precision(), dy, x, &mut gradients[place.clone()]);
            }
            Trained::Nothing => {}
            Trained::LowRank(adapter) => adapter.backward_weight(x, dy, self.outputs(), gradients),
        }
    }
}

/// `dx (T, K) = dy (T, N) W`. Rows of `W` are read as they lie.
fn backward_input(dy: &[f32], w: &[f32], dx: &mut [f32], k: usize) {
    let n = w.len() / k;
    let left = Left { values: dy, row: n, inner: 1 };
    let out = Out { values: dx, row: k, epilogue: Epilogue::None };
    product(Shape { m: dy.len() / n, n: k, k: n }, left, Right { values: w, row: k }, out);
}

/// The first `width` of every `row` values.
#[derive(Clone, Copy)]
struct Columns<'a> {
    values: &'a [f32],
    row: usize,
    width: usize,
}

impl<'a> Columns<'a> {
    fn matrix(self) -> bf16::Matrix<'a> {
        let Self { values, row, width } = self;
        bf16::Matrix { values, row, rows: values.len().div_ceil(row), width }
    }
}

/// Rows that a weight's gradient sums at a time: their `dy` stays in the second cache.
const CHUNK: usize = 128;

/// `dw (N, K) += dyᵀ x`.
fn add_weight_gradient(precision: Precision, dy: Columns, x: Columns, dw: &mut [f32]) {
    if precision == Precision::Bf16 {
        return add_bf16_weight_gradient(dy, x, dw);
    }
    let (dys, xs) = (dy.values.chunks(CHUNK * dy.row), x.values.chunks(CHUNK * x.row));
    for (dy_values, x_values) in dys.zip(xs) {
        let left = Left { values: dy_values, row: 1, inner: dy.row };
        let out = Out { values: dw, row: x.width, epilogue: Epilogue::Accumulate };
        let shape = Shape { m: dy.width, n: x.width, k: x_values.len().div_ceil(x.row) };
        product(shape, left, Right { values: x_values, row: x.row }, out);
    }
}

thread_local! {
    // Used again by every product of a thread.
    static SIDES: Cell<[Operand; 2]> = const { Cell::new([Operand::EMPTY; 2]) };
}

/// The same of bf16 operands. Every value of `dw` passes through the caches once, however many rows there are.
fn add_bf16_weight_gradient(dy: Columns, x: Columns, dw: &mut [f32]) {
    let [mut left, mut right] = SIDES.take();
    left.left_of_columns(dy.matrix());
    right.right_of_columns(x.matrix());
    let out = Out { values: dw, row: x.width, epilogue: Epilogue::Accumulate };
    bf16::product(Unit::of_this_machine(), &left, &right, out);
    SIDES.set([left, right]);
}

/// `db (N) += sum over rows of dy (T, N)`.
pub fn backward_bias(dy: &[f32], db: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            for row in dy.chunks_exact(db.len()) {
                for (sum, &g) in db.iter_mut().zip(row) {
                    *sum += g;
                }
            }
        },
    );
}
