//! A matrix laid out for products, in one of the two ways that they read it: in panels for products of fp32 operands, in
//! tiles for those of bf16 operands. Its rows may be stored in several ways, one below the other.

use std::cell::Cell;
use std::ops::Range;

use super::Precision;
use super::panels::{Panels, Stored};
use crate::bf16::{self, Operand, Unit};
use crate::product::{Epilogue, Left, Out};
use crate::team::Team;

/// A weight matrix `(N, K)` ready for products.
#[derive(Debug, Clone)]
pub struct PackedMatrix(Layout);

#[derive(Debug, Clone)]
enum Layout {
    /// Rows that are stored alike together, one part below the other.
    Panels(Vec<Panels>),
    Tiles(Operand),
}

thread_local! {
    // Used again by every product of a thread.
    static LEFT: Cell<Operand> = const { Cell::new(Operand::EMPTY) };
}

/// Rows one below the other, of at least one part.
impl From<Vec<Panels>> for PackedMatrix {
    fn from(parts: Vec<Panels>) -> Self {
        assert!(parts.iter().all(|part| part.inputs() == parts[0].inputs()), "parts of one width");
        Self(Layout::Panels(parts))
    }
}

impl PackedMatrix {
    /// Packs `w (N, K)` for products of a precision.
    pub fn new(team: &Team, w: &[f32], k: usize, precision: Precision) -> Self {
        let mut matrix = Self(match precision {
            Precision::Fp32 => Layout::Panels(vec![Panels::zeros(Stored::F32, w.len() / k, k)]),
            Precision::Bf16 => Layout::Tiles(Operand::EMPTY),
        });
        matrix.fill(team, w, k);
        matrix
    }

    /// Puts other values `w (N, K)` in the place of these.
    pub fn fill(&mut self, team: &Team, w: &[f32], k: usize) {
        match &mut self.0 {
            Layout::Panels(parts) => {
                let mut left = w;
                for part in parts {
                    let rows;
                    (rows, left) = left.split_at(part.outputs() * k);
                    part.fill(team, rows);
                }
            }
            Layout::Tiles(tiles) => tiles.right_of_rows(team, bf16::Matrix::whole(w, k)),
        }
    }

    /// The same matrix for products of a precision. Nothing is done to what is ready for them.
    pub fn in_precision(self, precision: Precision) -> Self {
        match (&self.0, precision) {
            (Layout::Panels(_), Precision::Bf16) => {
                let (n, k) = (self.outputs(), self.inputs());
                let mut rows = vec![0f32; n * k];
                self.values(0..n * k, &mut rows);
                drop(self);
                Self::new(&Team::alone(), &rows, k, precision)
            }
            (Layout::Panels(_) | Layout::Tiles(_), _) => self,
        }
    }

    /// Its parts, which are multiplied in fp32.
    pub(super) fn panels(&self) -> &[Panels] {
        match &self.0 {
            Layout::Panels(parts) => parts,
            Layout::Tiles(_) => panic!("a matrix of bf16 products has no panels"),
        }
    }

    /// What its products are computed in.
    pub fn precision(&self) -> Precision {
        match self.0 {
            Layout::Panels(_) => Precision::Fp32,
            Layout::Tiles(_) => Precision::Bf16,
        }
    }

    /// Outputs (`N`).
    pub fn outputs(&self) -> usize {
        match &self.0 {
            Layout::Panels(parts) => parts.iter().map(Panels::outputs).sum(),
            Layout::Tiles(tiles) => tiles.outer,
        }
    }

    /// Inputs (`K`).
    pub fn inputs(&self) -> usize {
        match &self.0 {
            Layout::Panels(parts) => parts[0].inputs(),
            Layout::Tiles(tiles) => tiles.inner,
        }
    }

    /// Writes the values `range` of `(N, K)` to `out`.
    pub fn values(&self, range: Range<usize>, out: &mut [f32]) {
        match &self.0 {
            Layout::Panels(parts) => {
                let (mut begin, mut left) = (0, out);
                for part in parts {
                    let end = begin + part.outputs() * part.inputs();
                    let (from, to) = (range.start.clamp(begin, end), range.end.clamp(begin, end));
                    let of_part;
                    (of_part, left) = left.split_at_mut(to - from);
                    part.values(from - begin..to - begin, of_part);
                    begin = end;
                }
            }
            Layout::Tiles(tiles) => {
                let k = tiles.inner;
                out.iter_mut().zip(range).for_each(|(to, at)| *to = tiles.right_value(at / k, at % k));
            }
        }
    }

    /// `y (T, N) = x (T, K) Wᵀ`, added to a bias or the residual stream.
    pub fn forward(&self, team: &Team, x: &[f32], y: &mut [f32], epilogue: Epilogue) {
        let (n, k) = (self.outputs(), self.inputs());
        self.forward_columns(team, Left { values: x, row: k, inner: 1 }, x.len() / k, Out::new(y, n, epilogue));
    }

    /// The same for `rows` rows of any layout, to the first `N` columns of `out`.
    pub(super) fn forward_columns(&self, team: &Team, x: Left, rows: usize, mut out: Out) {
        match &self.0 {
            Layout::Panels(parts) => {
                let mut first = 0;
                for part in parts {
                    part.forward(team, x, rows, out.reborrow().part(0, first));
                    first += part.outputs();
                }
            }
            Layout::Tiles(tiles) => {
                let mut left = LEFT.take();
                let x = bf16::Matrix { values: x.values, row: x.row, rows, width: tiles.inner };
                left.left_of_rows(team, x);
                bf16::product(team, Unit::of_this_machine(), &left, tiles, out);
                LEFT.set(left);
            }
        }
    }

    /// `dx (T, K) = dy (T, N) W`.
    pub fn backward_input(&self, team: &Team, dy: &[f32], dx: &mut [f32]) {
        match &self.0 {
            Layout::Panels(parts) => {
                let (n, mut first, mut epilogue) = (self.outputs(), 0, Epilogue::None);
                for part in parts {
                    let left = Left { values: &dy[first..], row: n, inner: 1 };
                    part.backward_input(team, left, dy.len() / n, dx, epilogue);
                    (first, epilogue) = (first + part.outputs(), Epilogue::Accumulate);
                }
            }
            Layout::Tiles(tiles) => {
                let n = tiles.outer;
                let out = Out::new(dx, tiles.inner, Epilogue::None);
                turned_product(team, tiles, Left { values: dy, row: n, inner: 1 }, dy.len() / n, out);
            }
        }
    }

    /// `rows` rows of any layout times the matrix, whose rows also lie as `w (N, K)`.
    pub(super) fn backward_columns(&self, team: &Team, w: &[f32], dy: Left, rows: usize, out: Out) {
        match &self.0 {
            Layout::Panels(_) => super::times_rows(team, dy, rows, w, self.inputs(), out),
            Layout::Tiles(tiles) => turned_product(team, tiles, dy, rows, out),
        }
    }
}

/// `rows` rows of any layout times a matrix in tiles.
fn turned_product(team: &Team, tiles: &Operand, dy: Left, rows: usize, out: Out) {
    let mut left = LEFT.take();
    left.left_of_rows(team, bf16::Matrix { values: dy.values, row: dy.row, rows, width: tiles.outer });
    bf16::product_turned(team, Unit::of_this_machine(), &left, tiles, out);
    LEFT.set(left);
}
