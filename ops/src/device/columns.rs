//! Rows of values on a device: the sums of their columns in one fixed order, which are gradients of norms and biases, and
//! copies of some of them.
#![allow(unsafe_code)] // each launch's lengths are checked before it

use anyhow::Result;
use half::bf16;

use super::products::Matrix;
use super::{Launch, View};

/// Rows that a block of the kernels with a warp for each row takes.
pub(crate) const WARP_ROWS: usize = 4;
/// Threads of the elementwise kernels.
pub(crate) const THREADS: usize = 256;
/// Rows of a stretch that one block sums the columns of.
pub(crate) const STRETCH: usize = 256;

/// Rows of `k` values that a norm is taken of: `heads` to a token, and tokens `stride` values apart.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// Values in a row, a multiple of 8.
    pub k: usize,
    /// Rows of a token.
    pub heads: usize,
    /// Values from token to token.
    pub stride: usize,
}

impl Rows {
    /// Rows end to end.
    pub fn dense(k: usize) -> Self {
        Self { k, heads: 1, stride: k }
    }

    /// How many rows `x` holds; it starts at the first token's first row and may end with the last token's last.
    pub(crate) fn count(self, x: View<bf16>) -> usize {
        let tokens = x.len().div_ceil(self.stride);
        assert!(self.k.is_multiple_of(8) && self.stride.is_multiple_of(8), "kernels read eight values at a time");
        assert!(
            tokens == 0 || x.len() >= (tokens - 1) * self.stride + self.heads * self.k,
            "the last row is cut short"
        );
        tokens * self.heads
    }

    pub(crate) fn grid(self, x: View<bf16>) -> [usize; 3] {
        [self.count(x).div_ceil(WARP_ROWS), 1, 1]
    }
}

/// Values of scratch that the sums over `count` rows of `k` columns take.
pub fn partial_len(k: usize, count: usize) -> usize {
    count.div_ceil(STRETCH) * k
}

pub(crate) fn stretches(k: usize, count: usize) -> [usize; 3] {
    [k.div_ceil(64), count.div_ceil(STRETCH), 1]
}

/// Sums in two passes; the first is given its terms.
pub(crate) fn column_sums(first: Launch, rows: Rows, count: usize, sum: View<f32>, partial: View<f32>) -> Result<()> {
    assert!(partial.len() >= partial_len(rows.k, count), "too little scratch for the sums of columns");
    let first = first.arg(partial).arg(count as u32).arg(rows.k as u32).arg(rows.heads as u32);
    let first = first.arg(rows.stride as u32).arg(STRETCH as u32);
    // SAFETY: lengths are checked by the callers and above.
    unsafe { sum.device().launch(&first)? };
    add_stretches(partial, sum, count)
}

/// Adds to `sum (k)` what `partial` holds of the stretches of `count` rows, in order.
pub(crate) fn add_stretches(partial: View<f32>, sum: View<f32>, count: usize) -> Result<()> {
    assert!(partial.len() >= partial_len(sum.len(), count), "sums of every stretch");
    let launch = Launch::new("column_total", [sum.len().div_ceil(THREADS), 1, 1], 256).arg(partial).arg(sum);
    // SAFETY: lengths are checked above.
    unsafe { sum.device().launch(&launch.arg(sum.len() as u32).arg(count.div_ceil(STRETCH) as u32)) }
}

/// The grid of an elementwise kernel whose threads take eight values each.
pub(crate) fn eights(values: usize) -> [usize; 3] {
    [values.div_ceil(8 * THREADS), 1, 1]
}

/// `to = scale from`, of as many rows and columns. Columns begin at, and are, multiples of eight.
pub(crate) fn copy(from: Matrix<bf16>, to: Matrix<bf16>, scale: f32) -> Result<()> {
    let (rows, width) = (from.rows(), from.width());
    assert_eq!((to.rows(), to.width()), (rows, width), "a copy fills its columns");
    let aligned = |n: usize| n.is_multiple_of(8);
    assert!(aligned(width) && aligned(from.row) && aligned(to.row), "kernels copy eight values at a time");
    let launch = Launch::new("copy_columns", eights(rows * width), 256).arg(from.values).arg(to.values);
    let launch = launch.arg(rows as u64).arg(width as u32).arg(from.row as u32).arg(to.row as u32).arg(scale);
    // SAFETY: the columns lie within their buffers, and there are as many of them.
    unsafe { to.values.device().launch(&launch) }
}
