//! Products with some of the rows of a layer's matrix on a device, one head's part of a matrix that holds all heads: the
//! twin of `linear/window.rs`. Operands are columns of any matrix, so that heads side by side need not be copied; results
//! are multiplied by a factor.

use std::ops::Range;

use anyhow::Result;
use half::bf16;

use super::{Linear, LoraHidden, LowRank, Weight};
use crate::device::View;
use crate::device::products::{Matrix, Side, product};

/// Rows of a matrix with `width` columns.
fn rows<T: bytemuck::Pod>(values: View<T>, window: Range<usize>, width: usize) -> Matrix<T> {
    Matrix::dense(values.part(window.start * width..window.end * width), width)
}

impl Linear<'_> {
    /// `y = factor x W[window]ᵀ`, written; `lora_hidden` is scratch between the factors of an addition.
    pub(crate) fn forward_window(
        &self,
        window: Range<usize>,
        x: Matrix<bf16>,
        y: Matrix<bf16>,
        factor: f32,
        lora_hidden: View<bf16>,
    ) -> Result<()> {
        let w = rows(self.w.values, window.clone(), self.k);
        product(Side::plain(x), Side::transposed(w), y, factor, false)?;
        let Some(addition) = &self.addition else { return Ok(()) };
        let hidden = addition.project(x, lora_hidden)?;
        let b = rows(addition.only().values, window, addition.rank);
        product(Side::plain(hidden), Side::transposed(b), y, factor, true)
    }

    /// `y = factor x W[window]`, written; `lora_hidden` as in [`Linear::forward_window`].
    pub(crate) fn times_window(
        &self,
        window: Range<usize>,
        x: Matrix<bf16>,
        y: Matrix<bf16>,
        factor: f32,
        lora_hidden: View<bf16>,
    ) -> Result<()> {
        let w = rows(self.w.values, window.clone(), self.k);
        product(Side::plain(x), Side::plain(w), y, factor, false)?;
        let Some(addition) = &self.addition else { return Ok(()) };
        let hidden = addition.project_back(window, x, lora_hidden)?;
        let a = Matrix::dense(addition.a.values, self.k);
        product(Side::plain(hidden), Side::plain(a), y, factor, true)
    }

    /// `x (T, K)`, `dy (T, window)` -> the gradient of what is trained of those rows, times `factor`, added to. For `y = x
    /// W[window]` the two change places.
    pub(crate) fn add_window_gradient(
        &self,
        window: Range<usize>,
        x: Matrix<bf16>,
        dy: Matrix<bf16>,
        factor: f32,
        lora_hidden: LoraHidden,
    ) -> Result<()> {
        if let Some(gradient) = self.w.gradient {
            let gradient = rows(gradient, window.clone(), self.k);
            product(Side::transposed(dy), Side::plain(x), gradient, factor, true)?;
        }
        let Some(addition) = &self.addition else { return Ok(()) };
        if let Some(gradient) = addition.only().gradient {
            let (gradient, hidden) =
                (rows(gradient, window.clone(), addition.rank), addition.project(x, lora_hidden.values)?);
            product(Side::transposed(dy), Side::plain(hidden), gradient, factor, true)?;
        }
        if let Some(gradient) = addition.a.gradient {
            let d_hidden = addition.project_back(window, dy, lora_hidden.gradient)?;
            let gradient = Matrix::dense(gradient, self.k);
            product(Side::transposed(d_hidden), Side::plain(x), gradient, factor, true)?;
        }
        Ok(())
    }
}

impl<'a> LowRank<'a> {
    /// The one `B` of an addition to a matrix that is one tensor.
    fn only(&self) -> Weight<'a> {
        assert!(self.parts.len() == 1, "windows are of matrices that are one tensor");
        self.parts[0].1
    }

    /// `s x B[window]`, in the scratch.
    fn project_back<'i>(
        &self,
        window: Range<usize>,
        x: Matrix<bf16>,
        lora_hidden: View<'i, bf16>,
    ) -> Result<Matrix<'i, bf16>> {
        let hidden = Matrix::dense(lora_hidden.part(0..x.rows() * self.rank), self.rank);
        let b = rows(self.only().values, window, self.rank);
        product(Side::plain(x), Side::plain(b), hidden, self.scale, false)?;
        Ok(hidden)
    }
}
