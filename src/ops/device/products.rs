//! Linear layers on a device: the products of `ops/linear.rs` in bf16 with fp32 sums. The residual add is the product's
//! own (`add`), so the stream is read and written once.

use anyhow::Result;
use half::bf16;

use super::View;

/// One side of a product, row by row in memory.
#[derive(Debug, Clone, Copy)]
pub struct Operand {
    /// Where it is; bf16.
    pub address: u64,
    /// Whether memory holds the transpose of what is multiplied.
    pub transposed: bool,
}

/// `out (m, n) = [out +] left (m, k) right (k, n)`.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// Left side.
    pub left: Operand,
    /// Right side.
    pub right: Operand,
    /// Where the result goes.
    pub out: u64,
    /// Whether the result is fp32; bf16 otherwise.
    pub wide: bool,
    /// Whether what `out` holds is the start of the sums.
    pub add: bool,
}

fn plain(view: View<bf16>) -> Operand {
    Operand { address: view.address(), transposed: false }
}

fn transposed(view: View<bf16>) -> Operand {
    Operand { address: view.address(), transposed: true }
}

#[allow(unsafe_code)]
fn run(view: View<bf16>, product: &Product) -> Result<()> {
    if product.m == 0 {
        return Ok(());
    }
    // SAFETY: the callers checked the lengths of all three.
    unsafe { view.device().product(product) }
}

/// `y (T, N) = [y +] x (T, K) Wᵀ`.
pub fn forward(x: View<bf16>, w: View<bf16>, y: View<bf16>, k: usize, add: bool) -> Result<()> {
    let (m, n) = (x.len() / k, w.len() / k);
    assert_eq!((x.len(), w.len(), y.len()), (m * k, n * k, m * n));
    run(x, &Product { m, n, k, left: plain(x), right: transposed(w), out: y.address(), wide: false, add })
}

/// The same to fp32: logits.
pub fn forward_wide(x: View<bf16>, w: View<bf16>, y: View<f32>, k: usize) -> Result<()> {
    let (m, n) = (x.len() / k, w.len() / k);
    assert_eq!((x.len(), w.len(), y.len()), (m * k, n * k, m * n));
    run(x, &Product { m, n, k, left: plain(x), right: transposed(w), out: y.address(), wide: true, add: false })
}

/// `dx (T, K) = dy (T, N) W`.
pub fn backward_input(dy: View<bf16>, w: View<bf16>, dx: View<bf16>, k: usize) -> Result<()> {
    let n = w.len() / k;
    let m = dy.len() / n;
    assert_eq!((dy.len(), w.len(), dx.len()), (m * n, n * k, m * k));
    run(dy, &Product { m, n: k, k: n, left: plain(dy), right: plain(w), out: dx.address(), wide: false, add: false })
}

/// `dw (N, K) += dyᵀ x`, in fp32.
pub fn backward_weight(dy: View<bf16>, x: View<bf16>, dw: View<f32>, k: usize) -> Result<()> {
    let n = dw.len() / k;
    let t = x.len() / k;
    assert_eq!((dy.len(), x.len(), dw.len()), (t * n, t * k, n * k));
    run(
        dy,
        &Product { m: n, n: k, k: t, left: transposed(dy), right: plain(x), out: dw.address(), wide: true, add: true },
    )
}
