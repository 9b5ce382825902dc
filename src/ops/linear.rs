//! `y = x Wᵀ (+ b)`, with `W` stored `(N, K)` as Hugging Face stores it. The products are the `gemm` crate's.

/// Rows below which the `gemm` crate picks a kernel that sums in another order; smaller batches are padded to it,
/// so that a row's product is the same to the bit whatever rows stand beside it.
const MIN_ROWS: usize = 8;

/// A row-major operand: its values, and the distance between neighbours down and across.
#[derive(Clone, Copy)]
struct Operand<'a> {
    values: &'a [f32],
    row_stride: usize,
    column_stride: usize,
}

/// `dst (m, n) = [dst +] lhs (m, k) rhs (k, n)`.
fn product(m: usize, n: usize, k: usize, dst: &mut [f32], add: bool, lhs: Operand, rhs: Operand) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let last = |o: Operand, rows: usize, columns: usize| (rows - 1) * o.row_stride + (columns - 1) * o.column_stride;
    assert!(dst.len() >= m * n, "product: destination holds {} of {} values", dst.len(), m * n);
    assert!(lhs.values.len() > last(lhs, m, k) && rhs.values.len() > last(rhs, k, n), "product: operand too short");
    #[allow(unsafe_code)]
    // SAFETY: the two assertions above bound every address the strides can reach; `dst` is uniquely borrowed.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            n as isize,
            add,
            lhs.values.as_ptr(),
            lhs.column_stride as isize,
            lhs.row_stride as isize,
            rhs.values.as_ptr(),
            rhs.column_stride as isize,
            rhs.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// `y (T, N) = [y +] x (T, K) Wᵀ`, `w (N, K)`. With `add`, what `y` holds is the start: a bias or the residual stream.
pub fn forward(x: &[f32], w: &[f32], y: &mut [f32], k: usize, add: bool) {
    let (t, n) = (x.len() / k, w.len() / k);
    let transposed = Operand { values: w, row_stride: 1, column_stride: k };
    if t >= MIN_ROWS {
        return product(t, n, k, y, add, Operand { values: x, row_stride: k, column_stride: 1 }, transposed);
    }
    let mut padded_x = vec![0f32; MIN_ROWS * k];
    padded_x[..t * k].copy_from_slice(x);
    let mut padded_y = vec![0f32; MIN_ROWS * n];
    padded_y[..t * n].copy_from_slice(&y[..t * n]);
    product(MIN_ROWS, n, k, &mut padded_y, add, Operand { values: &padded_x, row_stride: k, column_stride: 1 }, transposed);
    y[..t * n].copy_from_slice(&padded_y[..t * n]);
}

/// Writes the bias `b (N)` into every row of `y (T, N)`, ready for [`forward`] to add to.
pub fn fill_bias(b: &[f32], y: &mut [f32]) {
    y.chunks_exact_mut(b.len()).for_each(|row| row.copy_from_slice(b));
}

/// `dx (T, K) = dy (T, N) W`.
pub fn backward_input(dy: &[f32], w: &[f32], dx: &mut [f32], k: usize) {
    let n = w.len() / k;
    let lhs = Operand { values: dy, row_stride: n, column_stride: 1 };
    product(dy.len() / n, k, n, dx, false, lhs, Operand { values: w, row_stride: k, column_stride: 1 });
}

/// `dw (N, K) += dyᵀ x`.
pub fn backward_weight(dy: &[f32], x: &[f32], dw: &mut [f32], k: usize) {
    let n = dw.len() / k;
    let lhs = Operand { values: dy, row_stride: 1, column_stride: n };
    product(n, k, x.len() / k, dw, true, lhs, Operand { values: x, row_stride: k, column_stride: 1 });
}

/// `db (N) += sum over rows of dy (T, N)`.
pub fn backward_bias(dy: &[f32], db: &mut [f32]) {
    super::vector::vectorised(
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
