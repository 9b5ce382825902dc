//! Linear layers on a device, whose matrix is trained or frozen, with or without a low-rank addition: the formulas of
//! `low_rank.rs`, in bf16 with fp32 sums.
#![allow(unsafe_code)] // each launch's lengths are checked before it

mod window;

pub(crate) use window::Window;

use std::ops::Range;

use anyhow::Result;
use half::bf16;

use super::LowRankPlaces;
use crate::device::columns::{Rows, column_sums, eights, stretches};
use crate::device::products::{Matrix, Output, Side, backward_input, backward_weight, forward, product};
use crate::device::{Launch, Null, View};

/// Flat buffers of values and, where they learn, of their gradients.
#[derive(Debug, Clone, Copy)]
pub struct Flat<'a> {
    /// What is computed with.
    pub values: View<'a, bf16>,
    /// Gradients, at the values' places.
    pub gradients: Option<View<'a, f32>>,
}

impl<'a> Flat<'a> {
    /// The weight at `range`.
    pub fn weight(&self, range: &Range<usize>) -> Weight<'a> {
        let gradient = self.gradients.map(|gradients| gradients.part(range.clone()));
        Weight { values: self.values.part(range.clone()), gradient, around_one: false }
    }
}

/// A weight, and where its gradient is added if it is trained. Empty where the model has none.
#[derive(Debug, Clone, Copy)]
pub struct Weight<'a> {
    /// What is computed with.
    pub values: View<'a, bf16>,
    /// Where its gradient is added.
    pub gradient: Option<View<'a, f32>>,
    /// Whether its values are how far what multiplies is from one, as those of some norms.
    pub around_one: bool,
}

impl<'a> Weight<'a> {
    /// A weight that is not trained.
    pub fn frozen(values: View<'a, bf16>) -> Self {
        Self { values, gradient: None, around_one: false }
    }

    /// A weight whose gradient is added to `gradient`.
    pub fn trained(values: View<'a, bf16>, gradient: View<'a, f32>) -> Self {
        Self { gradient: Some(gradient), ..Self::frozen(values) }
    }
}

/// A matrix `(N, K)`, and what is added to it.
#[derive(Debug)]
pub struct Linear<'a> {
    w: Weight<'a>,
    k: usize,
    addition: Option<LowRank<'a>>,
}

/// `s B A`: all `A`s `(parts R, K)` side by side, and for each part the first output it adds to and its `B (N, R)`.
#[derive(Debug)]
pub struct LowRank<'a> {
    a: Weight<'a>,
    parts: Vec<(usize, Weight<'a>)>,
    rank: usize,
    scale: f32,
}

/// A backward's scratch between the factors of an addition; `(T, parts R)` of the widest addition each.
#[derive(Debug, Clone, Copy)]
pub struct LoraHidden<'a> {
    /// `s A x`.
    pub values: View<'a, bf16>,
    /// Its gradient.
    pub gradient: View<'a, bf16>,
}

impl<'a> Linear<'a> {
    /// A matrix with `k` inputs.
    pub fn new(w: Weight<'a>, k: usize, addition: Option<LowRank<'a>>) -> Self {
        Self { w, k, addition }
    }

    /// Inputs (`K`).
    pub fn inputs(&self) -> usize {
        self.k
    }

    /// `x (T, K)` -> `y (T, N)`, added to where `add`; `lora_hidden` is scratch between the factors of an addition.
    pub fn forward<T: Output>(&self, x: View<bf16>, y: View<T>, add: bool, lora_hidden: View<bf16>) -> Result<()> {
        forward(x, self.w.values, y, self.k, add)?;
        let Some(addition) = &self.addition else { return Ok(()) };
        addition.forward(Matrix::dense(x, self.k), Matrix::dense(y, self.outputs()), lora_hidden)
    }

    /// Columns of what it makes.
    fn outputs(&self) -> usize {
        self.w.values.len() / self.k
    }

    /// `dy (T, N)` -> `dx (T, K)`, added to where `add`; the gradients of what is trained are added to.
    pub fn backward(
        &self,
        x: View<bf16>,
        dy: View<bf16>,
        dx: View<bf16>,
        add: bool,
        lora_hidden: LoraHidden,
    ) -> Result<()> {
        backward_input(dy, self.w.values, dx, self.k, add)?;
        if let Some(gradient) = self.w.gradient {
            backward_weight(dy, x, gradient, self.k)?;
        }
        let Some(addition) = &self.addition else { return Ok(()) };
        let dy = Matrix::dense(dy, self.outputs());
        addition.backward(Matrix::dense(x, self.k), dy, Matrix::dense(dx, self.k), lora_hidden)
    }
}

impl<'a> LowRank<'a> {
    /// The addition at `places` of an adapter, of rank `R`, times `scale`.
    pub fn new(adapter: Flat<'a>, places: &LowRankPlaces, rank: usize, scale: f32) -> Self {
        let parts = places.parts.iter().map(|(first, place)| (*first, adapter.weight(place))).collect();
        Self { a: adapter.weight(&places.a), parts, rank, scale }
    }

    /// `x (T, K)` -> `s A x`, in the scratch.
    fn project<'i>(&self, x: Matrix<bf16>, lora_hidden: View<'i, bf16>) -> Result<Matrix<'i, bf16>> {
        let width = self.parts.len() * self.rank;
        let a = Matrix::dense(self.a.values, self.a.values.len() / width);
        let lora_hidden = Matrix::dense(lora_hidden.part(0..x.rows() * width), width);
        product(Side::plain(x), Side::transposed(a), lora_hidden, self.scale, false)?;
        Ok(lora_hidden)
    }

    /// Each part: the first column of the outputs and of the values between the factors, and its `B`.
    fn parts(&self) -> impl Iterator<Item = (usize, usize, Weight<'a>)> {
        self.parts.iter().enumerate().map(|(index, &(first, b))| (first, index * self.rank, b))
    }

    /// `x (T, K)` -> added to `y (T, N)`.
    fn forward<T: Output>(&self, x: Matrix<bf16>, y: Matrix<T>, lora_hidden: View<bf16>) -> Result<()> {
        let lora_hidden = self.project(x, lora_hidden)?;
        for (first, at, b) in self.parts() {
            let b = Matrix::dense(b.values, self.rank);
            let left = Side::plain(lora_hidden.columns(at, self.rank));
            product(left, Side::transposed(b), y.columns(first, b.rows()), 1.0, true)?;
        }
        Ok(())
    }

    /// `dy (T, N)` -> added to `dx (T, K)`, and to the gradients of the factors.
    fn backward(&self, x: Matrix<bf16>, dy: Matrix<bf16>, dx: Matrix<bf16>, lora_hidden: LoraHidden) -> Result<()> {
        let h = self.project(x, lora_hidden.values)?;
        let (k, width) = (x.width(), h.width());
        let dh = Matrix::dense(lora_hidden.gradient.part(0..x.rows() * width), width);
        for (first, at, b) in self.parts() {
            let rows = Matrix::dense(b.values, self.rank);
            let (dy, dh) = (dy.columns(first, rows.rows()), dh.columns(at, self.rank));
            if let Some(gradient) = b.gradient {
                let (left, right) = (Side::transposed(dy), Side::plain(h.columns(at, self.rank)));
                product(left, right, Matrix::dense(gradient, self.rank), 1.0, true)?;
            }
            product(Side::plain(dy), Side::plain(rows), dh, self.scale, false)?;
        }
        if let Some(gradient) = self.a.gradient {
            product(Side::transposed(dh), Side::plain(x), Matrix::dense(gradient, k), 1.0, true)?;
        }
        let a = Matrix::dense(self.a.values, k);
        product(Side::plain(dh), Side::plain(a), dx, 1.0, true)
    }
}

/// `db (N) += sum over rows of dy (T, N)`.
pub fn bias_backward(dy: View<bf16>, db: View<f32>, partial: View<f32>) -> Result<()> {
    let rows = Rows::dense(db.len());
    let count = rows.count(dy);
    let launch = Launch::new("column_partials", stretches(rows.k, count), 256).arg(dy).arg(Null).arg(Null);
    column_sums(launch, rows, count, db, partial)
}

/// Writes `b (N)` into every row of `y`.
pub fn fill_bias(b: View<bf16>, y: View<bf16>) -> Result<()> {
    assert!(y.len().is_multiple_of(b.len()) && b.len().is_multiple_of(8), "rows of the bias, eight values at a time");
    let launch = Launch::new("fill_rows", eights(y.len()), 256).arg(b).arg(y).arg(b.len() as u32).arg(y.len() as u64);
    // SAFETY: lengths are checked above.
    unsafe { y.device().launch(&launch) }
}
