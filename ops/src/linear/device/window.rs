//! Products with some of the rows of a layer's matrix on a device, one head's part of a matrix that holds all heads: the
//! twin of `linear/window.rs`. Operands are columns of any matrix, so that heads side by side need not be copied, and the
//! windows of all heads are multiplied at once; those of an addition as many at once as its scratch has room for.

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
        for windows in addition.at_once(windows, lora_hidden) {
            let hidden = addition.project_windows(windows, lora_hidden)?;
            let b = |window: &Window| Side::transposed(window.of(addition.only().values, addition.rank));
            let all = windows.iter().zip(hidden).map(|(window, hidden)| (Side::plain(hidden), b(window), window.y));
            products(&all.collect::<Vec<_>>(), factor, true)?;
        }
        Ok(())
    }

    /// `y = factor x W[rows]`, written; `lora_hidden` as in [`Linear::forward_windows`].
    pub(crate) fn times_windows(&self, windows: &[Window], factor: f32, lora_hidden: View<bf16>) -> Result<()> {
        let w = |window: &Window| Side::plain(window.of(self.w.values, self.k));
        let all: Vec<_> = windows.iter().map(|window| (Side::plain(window.x), w(window), window.y)).collect();
        products(&all, factor, false)?;
        let Some(addition) = &self.addition else { return Ok(()) };
        let a = Side::plain(Matrix::dense(addition.a.values, self.k));
        for windows in addition.at_once(windows, lora_hidden) {
            let hidden = addition.project_windows_back(windows, |window| window.x, lora_hidden)?;
            let all = windows.iter().zip(hidden).map(|(window, hidden)| (Side::plain(hidden), a, window.y));
            products(&all.collect::<Vec<_>>(), factor, true)?;
        }
        Ok(())
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
        let mut parts = addition.at_once(windows, lora_hidden.values);
        parts.try_for_each(|windows| addition.add_window_gradients(windows, factor, lora_hidden))
    }
}

impl<'a> LowRank<'a> {
    /// The one `B` of an addition to a matrix that is one tensor.
    fn only(&self) -> Weight<'a> {
        assert!(self.parts.len() == 1, "windows are of matrices that are one tensor");
        self.parts[0].1
    }

    /// Windows, as many at a time as the scratch has room for.
    fn at_once<'w, 'm>(
        &self,
        windows: &'w [Window<'m>],
        lora_hidden: View<bf16>,
    ) -> impl Iterator<Item = &'w [Window<'m>]> + use<'w, 'm> {
        let of_window = windows.first().map_or(1, |window| window.x.rows() * self.rank).max(1);
        windows.chunks((lora_hidden.len() / of_window).max(1))
    }

    /// The place of each of some windows in the scratch.
    fn hidden<'i>(&self, windows: &[Window], lora_hidden: View<'i, bf16>) -> Vec<Matrix<'i, bf16>> {
        let place = |(index, window): (usize, &Window)| {
            let len = window.x.rows() * self.rank;
            Matrix::dense(lora_hidden.part(index * len..(index + 1) * len), self.rank)
        };
        windows.iter().enumerate().map(place).collect()
    }

    /// `s A x`, in the scratch.
    fn project_windows<'i>(&self, windows: &[Window], lora_hidden: View<'i, bf16>) -> Result<Vec<Matrix<'i, bf16>>> {
        let hidden = self.hidden(windows, lora_hidden);
        let a = Side::transposed(Matrix::dense(self.a.values, self.a.values.len() / self.rank));
        let all = windows.iter().zip(&hidden).map(|(window, &hidden)| (Side::plain(window.x), a, hidden));
        products(&all.collect::<Vec<_>>(), self.scale, false)?;
        Ok(hidden)
    }

    /// `s x B[rows]`, in the scratch, of what `of` names of a window.
    fn project_windows_back<'i>(
        &self,
        windows: &[Window],
        of: impl for<'m> Fn(&Window<'m>) -> Matrix<'m, bf16>,
        lora_hidden: View<'i, bf16>,
    ) -> Result<Vec<Matrix<'i, bf16>>> {
        let hidden = self.hidden(windows, lora_hidden);
        let b = |window: &Window| Side::plain(window.of(self.only().values, self.rank));
        let all = windows.iter().zip(&hidden).map(|(window, &hidden)| (Side::plain(of(window)), b(window), hidden));
        products(&all.collect::<Vec<_>>(), self.scale, false)?;
        Ok(hidden)
    }

    fn add_window_gradients(&self, windows: &[Window], factor: f32, lora_hidden: LoraHidden) -> Result<()> {
        if let Some(gradient) = self.only().gradient {
            let hidden = self.project_windows(windows, lora_hidden.values)?;
            let all = windows.iter().zip(hidden).map(|(window, hidden)| {
                let dy = Side::transposed(window.y);
                (dy, Side::plain(hidden), window.of(gradient, self.rank))
            });
            products(&all.collect::<Vec<_>>(), factor, true)?;
        }
        let Some(gradient) = self.a.gradient else { return Ok(()) };
        let d_hidden = self.project_windows_back(windows, |window| window.y, lora_hidden.gradient)?;
        // One after the other: all windows add to it.
        windows.iter().zip(d_hidden).try_for_each(|(window, d_hidden)| {
            let gradient = Matrix::dense(gradient, window.x.width());
            product(Side::transposed(d_hidden), Side::plain(window.x), gradient, factor, true)
        })
    }
}
