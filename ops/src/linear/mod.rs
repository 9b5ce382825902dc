//! `y = x Wᵀ (+ b)`, with `W` stored `(N, K)` as Hugging Face stores it; forward, and a backward that adds the gradient of
//! what is trained: the matrix, a low-rank addition to it, or nothing.

mod blocks;
pub mod device;
pub mod grouped;
mod low_rank;
mod packed;
mod panels;
mod window;

use std::cell::Cell;
use std::ops::Range;

pub use self::blocks::BlockType;
pub use self::low_rank::{LowRank, LowRankPlaces};
pub use self::packed::PackedMatrix;
pub use self::panels::{Panels, Stored};
use super::bf16::{self, Operand, Unit};
pub use super::product::Epilogue;
use super::product::{Left, Out, Right, STRIP, Shape, product, product_together};
use super::team::Team;
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
/// use reckon_ops::linear::{Epilogue, Linear, PackedMatrix, Precision};
/// use reckon_ops::team::Team;
/// let (team, w) = (Team::alone(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
/// let packed = PackedMatrix::new(&team, &w, 3, Precision::Fp32);
/// let layer = Linear::trained(&packed, &w, 0..6);
/// let mut y = [0.0; 2];
/// layer.forward(&team, &[1.0, 0.0, 1.0], &mut y, Epilogue::None);
/// assert_eq!(y, [4.0, 10.0]);
/// let (mut dx, mut gradients) = ([0.0; 3], [0.0; 6]);
/// layer.backward_input(&team, &[1.0, 0.0], &mut dx);
/// layer.backward_weight(&team, &[1.0, 0.0, 1.0], &[1.0, 0.0], &mut gradients);
/// assert_eq!((dx, gradients), ([1.0, 2.0, 3.0], [1.0, 0.0, 1.0, 0.0, 0.0, 0.0]));
/// ```
#[derive(Debug)]
pub struct Linear<'a> {
    matrix: &'a PackedMatrix,
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
    /// A matrix that is trained, packed and with its rows `(N, K)` as they lie; its gradient belongs at `place` of the
    /// gradients.
    pub fn trained(matrix: &'a PackedMatrix, rows: &'a [f32], place: Range<usize>) -> Self {
        Self { matrix, trained: Trained::Matrix { rows, place } }
    }

    /// A matrix that stays as it is, with what is added to it.
    pub fn frozen(matrix: &'a PackedMatrix, adapter: Option<LowRank<'a>>) -> Self {
        Self { matrix, trained: adapter.map_or(Trained::Nothing, Trained::LowRank) }
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
    pub fn forward(&self, team: &Team, x: &[f32], y: &mut [f32], epilogue: Epilogue) {
        self.matrix.forward(team, x, y, epilogue);
        if let Trained::LowRank(adapter) = &self.trained {
            adapter.forward(team, x, y, self.outputs());
        }
    }

    /// `dy (T, N)` -> `dx (T, K)`, written.
    pub fn backward_input(&self, team: &Team, dy: &[f32], dx: &mut [f32]) {
        match &self.trained {
            Trained::Matrix { rows, .. } if self.matrix.precision() == Precision::Fp32 => {
                backward_input(team, dy, rows, dx, self.inputs());
            }
            Trained::Matrix { .. } | Trained::Nothing => self.matrix.backward_input(team, dy, dx),
            Trained::LowRank(adapter) => {
                self.matrix.backward_input(team, dy, dx);
                adapter.backward_input(team, dy, self.outputs(), dx);
            }
        }
    }

    /// `x (T, K)`, `dy (T, N)` -> the gradient of what is trained, added to `gradients`.
    pub fn backward_weight(&self, team: &Team, x: &[f32], dy: &[f32], gradients: &mut [f32]) {
        match &self.trained {
            Trained::Matrix { place, .. } => {
                let all = |values, row| Columns { values, row, width: row };
                let (dy, x) = (all(dy, self.outputs()), all(x, self.inputs()));
                add_weight_gradient(team, self.matrix.precision(), dy, x, &mut gradients[place.clone()]);
            }
            Trained::Nothing => {}
            Trained::LowRank(adapter) => adapter.backward_weight(team, x, dy, self.outputs(), gradients),
        }
    }
}

/// `dx (T, K) = dy (T, N) W`. Rows of `W` are read as they lie.
fn backward_input(team: &Team, dy: &[f32], w: &[f32], dx: &mut [f32], k: usize) {
    let n = w.len() / k;
    let left = Left { values: dy, row: n, inner: 1 };
    times_rows(team, left, dy.len() / n, w, k, Out::new(dx, k, Epilogue::None));
}

/// `rows` rows of any layout times `w (N, K)`.
fn times_rows(team: &Team, left: Left, rows: usize, w: &[f32], k: usize, out: Out) {
    product_together(team, Shape { m: rows, n: k, k: w.len() / k }, left, Right::new(w, k), out);
}

/// The first `width` of every `row` values.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) row: usize,
    pub(crate) width: usize,
}

impl<'a> Columns<'a> {
    fn matrix(self) -> bf16::Matrix<'a> {
        let Self { values, row, width } = self;
        bf16::Matrix { values, row, rows: values.len().div_ceil(row), width }
    }
}

/// Rows of a weight's gradient that are computed together, if it is large.
const GRADIENT_ROWS: usize = 256;

/// Rows that a weight's gradient of so many values sums in one chain. A gradient that leaves the cache between two chains
/// takes longer ones.
fn chain(values: usize) -> usize {
    if values <= 1 << 17 { 128 } else { 512 }
}

/// `dw (N, K) += dyᵀ x`.
fn add_weight_gradient(team: &Team, precision: Precision, dy: Columns, x: Columns, dw: &mut [f32]) {
    match precision {
        Precision::Fp32 => {
            let chain = chain(dw.len());
            let rows = team.piece(dy.width).min(GRADIENT_ROWS).next_multiple_of(STRIP);
            team.each(dw.chunks_mut(rows * x.width).zip((0..).step_by(rows)), |(dw, first)| {
                add_rows_of_weight_gradient(dy, x, chain, first, dw);
            });
        }
        Precision::Bf16 => add_bf16_weight_gradient(team, dy, x, dw),
    }
}

/// The rows of `dw` from `first` on.
fn add_rows_of_weight_gradient(dy: Columns, x: Columns, chain: usize, first: usize, dw: &mut [f32]) {
    let (dys, xs) = (dy.values.chunks(chain * dy.row), x.values.chunks(chain * x.row));
    for (dy_values, x_values) in dys.zip(xs) {
        let left = Left { values: &dy_values[first..], row: 1, inner: dy.row };
        let shape = Shape { m: dw.len() / x.width, n: x.width, k: x_values.len().div_ceil(x.row) };
        let out = Out::new(&mut *dw, x.width, Epilogue::Accumulate);
        product(shape, left, Right::new(x_values, x.row), out);
    }
}

thread_local! {
    // Used again by every product of a thread.
    static SIDES: Cell<[Operand; 2]> = const { Cell::new([Operand::EMPTY; 2]) };
}

/// The same of bf16 operands. Every value of `dw` passes through the caches once, however many rows there are.
fn add_bf16_weight_gradient(team: &Team, dy: Columns, x: Columns, dw: &mut [f32]) {
    let [mut left, mut right] = SIDES.take();
    left.left_of_columns(team, dy.matrix());
    right.right_of_columns(team, x.matrix());
    let out = Out::new(dw, x.width, Epilogue::Accumulate);
    bf16::product(team, Unit::of_this_machine(), &left, &right, out);
    SIDES.set([left, right]);
}

/// `db (N) += sum over rows of dy (T, N)`.
pub fn backward_bias(team: &Team, dy: &[f32], db: &mut [f32]) {
    let (n, width) = (db.len(), team.piece(db.len()));
    team.each(db.chunks_mut(width).zip((0..).step_by(width)), |(db, first)| {
        vectorised(
            #[inline(always)]
            || {
                for row in dy.chunks_exact(n) {
                    for (sum, &g) in db.iter_mut().zip(&row[first..]) {
                        *sum += g;
                    }
                }
            },
        );
    });
}
