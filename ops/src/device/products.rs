//! Matrix products on a device: bf16 with fp32 sums, of whole matrices or of some of their columns. A residual add is the
//! product's own (`add`), so the stream is read and written once.

use anyhow::Result;
use bytemuck::Pod;
use half::bf16;

use super::{Class, View};

/// One side of a product, row by row in memory.
#[derive(Debug, Clone, Copy)]
pub struct Operand {
    /// Where it is; bf16.
    pub address: u64,
    /// Values from row to row in memory.
    pub row: usize,
    /// Whether memory holds the transpose of what is multiplied.
    pub transposed: bool,
}

/// `out (m, n) = [out +] scale left (m, k) right (k, n)`.
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
    /// Values from row to row of the result in memory.
    pub out_row: usize,
    /// Whether the result is fp32; bf16 otherwise.
    pub wide: bool,
    /// Factor of the sums.
    pub scale: f32,
    /// Whether what `out` holds is the start of the sums.
    pub add: bool,
}

impl Product {
    fn of<T: Output>(left: Side, right: Side, out: Matrix<T>, scale: f32, add: bool) -> Self {
        let ((m, k), (inner, n)) = (left.shape(), right.shape());
        assert_eq!((k, m, n), (inner, out.rows(), out.width), "sizes of a product");
        let (left, right, address) = (left.operand(), right.operand(), out.values.address());
        Self { m, n, k, left, right, out: address, out_row: out.row, wide: T::WIDE, scale, add }
    }

    /// All that products at once share.
    fn sizes(&self) -> ([usize; 6], [bool; 2]) {
        let rows = [self.left.row, self.right.row, self.out_row];
        ([self.m, self.n, self.k, rows[0], rows[1], rows[2]], [self.left.transposed, self.right.transposed])
    }
}

/// What a product may be written as.
pub trait Output: Pod {
    /// Whether that is fp32.
    const WIDE: bool;
}

impl Output for f32 {
    const WIDE: bool = true;
}

impl Output for bf16 {
    const WIDE: bool = false;
}

/// A matrix `(rows, width)` in memory, or some of its columns: rows begin `row` values apart.
#[derive(Debug)]
pub struct Matrix<'a, T> {
    pub(super) values: View<'a, T>,
    pub(super) row: usize,
    width: usize,
}

impl<T> Clone for Matrix<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Matrix<'_, T> {}

impl<'a, T: Pod> Matrix<'a, T> {
    /// Rows of `width` values end to end.
    pub fn dense(values: View<'a, T>, width: usize) -> Self {
        assert!(values.len().is_multiple_of(width), "{} values are not whole rows of {width}", values.len());
        Self { values, row: width, width }
    }

    /// The `width` columns from `first` on.
    pub fn columns(self, first: usize, width: usize) -> Self {
        assert!(first + width <= self.width, "columns {first} to {} of {}", first + width, self.width);
        let first = first.min(self.values.len());
        Self { values: self.values.part(first..self.values.len()), width, ..self }
    }

    /// How many rows there are.
    pub fn rows(self) -> usize {
        self.values.len().div_ceil(self.row)
    }

    /// Columns.
    pub fn width(self) -> usize {
        self.width
    }
}

/// A side of a product: rows, columns, and how memory holds them.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    matrix: Matrix<'a, bf16>,
    transposed: bool,
}

impl<'a> Side<'a> {
    /// The matrix as it lies in memory.
    pub fn plain(matrix: Matrix<'a, bf16>) -> Self {
        Self { matrix, transposed: false }
    }

    /// The transpose of what lies in memory.
    pub fn transposed(matrix: Matrix<'a, bf16>) -> Self {
        Self { matrix, transposed: true }
    }

    fn shape(self) -> (usize, usize) {
        let (rows, columns) = (self.matrix.rows(), self.matrix.width);
        if self.transposed { (columns, rows) } else { (rows, columns) }
    }

    fn operand(self) -> Operand {
        Operand { address: self.matrix.values.address(), row: self.matrix.row, transposed: self.transposed }
    }
}

/// `out (m, n) = [out +] scale left (m, k) right (k, n)`.
#[allow(unsafe_code)]
pub fn product<T: Output>(left: Side, right: Side, out: Matrix<T>, scale: f32, add: bool) -> Result<()> {
    let product = Product::of(left, right, out, scale, add);
    if product.m == 0 {
        return Ok(());
    }
    // SAFETY: the matrices lie within their buffers, and their sizes fit each other.
    unsafe { out.values.device().product(&product) }
}

/// The same for each of several left sides, right sides and results, at once where all begin at multiples of sixteen bytes,
/// which a library cannot see of addresses that the device has. All have the same sizes, rows begin as far apart, and the
/// results lie apart.
#[allow(unsafe_code)]
pub fn products<T: Output>(all: &[(Side, Side, Matrix<T>)], scale: f32, add: bool) -> Result<()> {
    let of = |&(left, right, out): &(Side, Side, Matrix<T>)| Product::of(left, right, out, scale, add);
    let each: Vec<Product> = all.iter().map(of).collect();
    match (all, &each[..]) {
        ([], _) => Ok(()),
        ([(left, right, out)], _) => product(*left, *right, *out, scale, add),
        ([(.., out), ..], [first, ..]) if first.m > 0 => {
            assert!(each.iter().all(|other| other.sizes() == first.sizes()), "products at once have the same sizes");
            let of_each = |address: fn(&Product) -> u64| each.iter().map(address);
            let addresses = of_each(|p| p.left.address).chain(of_each(|p| p.right.address)).chain(of_each(|p| p.out));
            let (device, addresses) = (out.values.device(), addresses.collect::<Vec<u64>>());
            if addresses.iter().any(|address| !address.is_multiple_of(16)) {
                return all.iter().try_for_each(|&(left, right, out)| product(left, right, out, scale, add));
            }
            let addresses = device.upload(Class::Activations, &addresses)?;
            // SAFETY: as in `product`, of each; there are three addresses for each.
            unsafe { device.products(first, addresses.all(), each.len()) }
        }
        _ => Ok(()),
    }
}

/// `y (T, N) = [y +] x (T, K) Wᵀ`.
pub fn forward<T: Output>(x: View<bf16>, w: View<bf16>, y: View<T>, k: usize, add: bool) -> Result<()> {
    let (x, w, n) = (Matrix::dense(x, k), Matrix::dense(w, k), w.len() / k);
    product(Side::plain(x), Side::transposed(w), Matrix::dense(y, n), 1.0, add)
}

/// `dx (T, K) = [dx +] dy (T, N) W`.
pub fn backward_input(dy: View<bf16>, w: View<bf16>, dx: View<bf16>, k: usize, add: bool) -> Result<()> {
    let (dy, w) = (Matrix::dense(dy, w.len() / k), Matrix::dense(w, k));
    product(Side::plain(dy), Side::plain(w), Matrix::dense(dx, k), 1.0, add)
}

/// `dw (N, K) += dyᵀ x`, in fp32.
pub fn backward_weight(dy: View<bf16>, x: View<bf16>, dw: View<f32>, k: usize) -> Result<()> {
    let (dy, x) = (Matrix::dense(dy, dw.len() / k), Matrix::dense(x, k));
    product(Side::transposed(dy), Side::plain(x), Matrix::dense(dw, k), 1.0, true)
}
