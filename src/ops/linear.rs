//! `y = x Wᵀ (+ b)`, with `W` stored `(N, K)` as Hugging Face stores it. The forward's products are ours, the backward's the `gemm` crate's.

use super::vector::{ARCH, vectorised};

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

/// Columns of a panel of [`PackedMatrix`]: two AVX-512 registers.
const PANEL: usize = 32;

/// A weight matrix `(N, K)` laid out for [`forward`]: panels of 32 outputs, each `(K, 32)`, the last filled with zeros.
///
/// The sampler packs all weights once a call, the trainer a matrix a micro-batch.
#[derive(Debug, Clone, Default)]
pub struct PackedMatrix {
    panels: Vec<f32>,
    n: usize,
    k: usize,
}

impl PackedMatrix {
    /// Packs `w (N, K)`.
    pub fn new(w: &[f32], k: usize) -> Self {
        let n = w.len() / k;
        let mut panels = vec![0f32; n.div_ceil(PANEL) * PANEL * k];
        for (rows, panel) in w.chunks(PANEL * k).zip(panels.chunks_exact_mut(PANEL * k)) {
            for (column, row) in rows.chunks_exact(k).enumerate() {
                for (i, &value) in row.iter().enumerate() {
                    panel[i * PANEL + column] = value;
                }
            }
        }
        Self { panels, n, k }
    }

    /// `y (T, N) = [y +] x (T, K) Wᵀ`. With `add`, what `y` holds is the start: a bias or the residual stream.
    ///
    /// Every output is one chain of multiply-adds over the inner dimension in order, added to `y` at the end: the same
    /// bits for any number of rows, on every machine. The `gemm` crate is as fast on large products, but picks kernels
    /// with other orders for small ones, and packs the weights again in every call.
    pub fn forward(&self, x: &[f32], y: &mut [f32], add: bool) {
        let (k, n) = (self.k, self.n);
        let t = x.len() / k;
        assert!(y.len() >= t * n, "linear: output holds {} of {} values", y.len(), t * n);
        ARCH.dispatch(Product { matrix: self, x, y, t, add });
    }
}

/// A whole product, compiled once for each instruction set.
struct Product<'a> {
    matrix: &'a PackedMatrix,
    x: &'a [f32],
    y: &'a mut [f32],
    t: usize,
    add: bool,
}

impl pulp::WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, simd: S) {
        // Rows and registers a panel that fit the instruction set's registers: 32 of 16 lanes, 16 of 8, or scalars.
        match S::F32_LANES {
            16 => self.panels::<S, 8, 2>(simd),
            8 => self.panels::<S, 3, 4>(simd),
            4 => self.panels::<S, 2, 8>(simd),
            _ => self.panels::<S, 1, 32>(simd),
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn panels<S: pulp::Simd, const R: usize, const V: usize>(&mut self, simd: S) {
        let (k, t) = (self.matrix.k, self.t);
        for (p, panel) in self.matrix.panels.chunks_exact(PANEL * k).enumerate() {
            let panel = S::as_simd_f32s(panel).0;
            let mut row = 0;
            while row + R <= t {
                self.rows::<S, R, V>(simd, panel, p, row);
                row += R;
            }
            while row < t {
                self.rows::<S, 1, V>(simd, panel, p, row);
                row += 1;
            }
        }
    }

    /// `R` rows of `x` times one panel of `V` registers.
    #[inline(always)]
    fn rows<S: pulp::Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        panel: &[S::f32s],
        p: usize,
        row: usize,
    ) {
        let (k, n) = (self.matrix.k, self.matrix.n);
        let x: [&[f32]; R] = std::array::from_fn(|r| &self.x[(row + r) * k..][..k]);
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        for (i, weights) in panel.as_chunks::<V>().0[..k].iter().enumerate() {
            for r in 0..R {
                let value = simd.splat_f32s(x[r][i]);
                for v in 0..V {
                    sums[r][v] = simd.mul_add_f32s(value, weights[v], sums[r][v]);
                }
            }
        }
        let columns = p * PANEL..(p * PANEL + PANEL).min(n);
        for (r, sums) in sums.iter().enumerate() {
            let mut row_sums = [0f32; PANEL];
            S::as_mut_simd_f32s(&mut row_sums).0.copy_from_slice(sums);
            let y = &mut self.y[(row + r) * n..][columns.clone()];
            if self.add {
                y.iter_mut().zip(&row_sums).for_each(|(y, sum)| *y += sum);
            } else {
                y.copy_from_slice(&row_sums[..y.len()]);
            }
        }
    }
}

/// `y (T, N) = [y +] x (T, K) Wᵀ`, `w (N, K)`: [`PackedMatrix::forward`] for one use.
pub fn forward(x: &[f32], w: &[f32], y: &mut [f32], k: usize, add: bool) {
    PackedMatrix::new(w, k).forward(x, y, add);
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
    vectorised(
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
