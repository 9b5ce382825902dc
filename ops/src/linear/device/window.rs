//! Products with some of the rows of a layer's matrix on a device, one head's part of a matrix that holds all heads: the
//! twin of `linear/window.rs`. Operands are columns of any matrix, so that heads side by side need not be copied, and the
//! windows of all heads are multiplied at once; an addition's go one by one, as they share what they add to.

use std::ops::Range;

use anyhow::Result;
use half::bf16;

use super::{Linear, LoraHidden, LowRank, Weight};
use crate::device::View;
use crate::device::products::{Matrix, Side, product, products};

/// Some rows of the matrix, what is multiplied by them, and where the result goes. All windows of a call have the same
/// sizes.
pub(crate) struct Window<'a> {
    pub(crate) rows: Range<usize>,
    pub(crate) x: Matrix<'a, bf16>,
    pub(crate) y: Matrix<'a, bf16>,
}

impl Window<'_> {
    /// Its rows of a matrix with `width` columns.
    fn of<'v, T: bytemuck::Pod>(&self, values: View<'v, T>, width: usize) -> Matrix<'v, T> {
        Matrix::dense(values.part(self.rows.start * width..self.rows.end * width), width)
    }
}

impl Linear<'_> {
    /// `y = factor x W[rows]ᵀ`, written; `lora_hidden` is scratch between the factors of an addition.
    pub(crate) fn forward_windows(&self, windows: &[Window], factor: f32, lora_hidden: View<bf16>) -> Result<()> {
        let w = |window: &Window| Side::transposed(window.of(self.w.values, self.k));
        let all: Vec<_> = windows.iter().map(|window| (Side::plain(window.x), w(window), window.y)).collect();
        products(&all, factor, false)?;
        let Some(addition) = &self.addition else { return Ok(()) };
        windows.iter().try_for_each(|window| {
            let hidden = addition.project(window.x, lora_hidden)?;
            let b = window.of(addition.only().values, addition.rank);
            product(Side::plain(hidden), Side::transposed(b), window.y, factor, true)
        })
    }

    /// `y = factor x W[rows]`, written; `lora_hidden` as in [`Linear::forward_windows`].
    pub(crate) fn times_windows(&self, windows: &[Window], factor: f32, lora_hidden: View<bf16>) -> Result<()> {
        let w = |window: &Window| Side::plain(window.of(self.w.values, self.k));
        let all: Vec<_> = windows.iter().map(|window| (Side::plain(window.x), w(window), window.y)).collect();
        products(&all, factor, false)?;
        let Some(addition) = &self.addition else { return Ok(()) };
        windows.iter().try_for_each(|window| {
            let hidden = addition.project_back(window, window.x, lora_hidden)?;
            let a = Matrix::dense(addition.a.values, self.k);
            product(Side::plain(hidden), Side::plain(a), window.y, factor, true)
        })
    }

    /// The gradient of what is trained of each window's rows, of `x (T, K)` and the gradient `y (T, rows)` of what they
    /// made, times `factor`, added to. For `y = x W[rows]` the two change places.
    pub(crate) fn add_window_gradients(&self, windows: &[Window], factor: f32, lora_hidden: LoraHidden) -> Result<()> {
        if let Some(gradient) = self.w.gradient {
            let all = windows.iter().map(|window| {
                let (dy, x) = (Side::transposed(window.y), Side::plain(window.x));
                (dy, x, window.of(gradient, self.k))
            });
            products(&all.collect::<Vec<_>>(), factor, true)?;
        }
        let Some(addition) = &self.addition else { return Ok(()) };
        windows.iter().try_for_each(|window| addition.add_window_gradient(window, factor, lora_hidden))
    }
}

impl<'a> LowRank<'a> {
    /// The one `B` of an addition to a matrix that is one tensor.
    fn only(&self) -> Weight<'a> {
        assert!(self.parts.len() == 1, "windows are of matrices that are one tensor");
        self.parts[0].1
    }

    /// `s x B[rows]`, in the scratch.
    fn project_back<'i>(
        &self,
        window: &Window,
        x: Matrix<bf16>,
        lora_hidden: View<'i, bf16>,
    ) -> Result<Matrix<'i, bf16>> {
        let hidden = Matrix::dense(lora_hidden.part(0..x.rows() * self.rank), self.rank);
        let b = window.of(self.only().values, self.rank);
        product(Side::plain(x), Side::plain(b), hidden, self.scale, false)?;
        Ok(hidden)
    }

    fn add_window_gradient(&self, window: &Window, factor: f32, lora_hidden: LoraHidden) -> Result<()> {
        if let Some(gradient) = self.only().gradient {
            let (gradient, hidden) = (window.of(gradient, self.rank), self.project(window.x, lora_hidden.values)?);
            product(Side::transposed(window.y), Side::plain(hidden), gradient, factor, true)?;
        }
        if let Some(gradient) = self.a.gradient {
            let d_hidden = self.project_back(window, window.y, lora_hidden.gradient)?;
            let gradient = Matrix::dense(gradient, window.x.width());
            product(Side::transposed(d_hidden), Side::plain(window.x), gradient, factor, true)?;
        }
        Ok(())
    }
}
