//! The one matrix product that linear layers and attention stand on: `C (M, N) = [C +] A (M, K) B (K, N)`.
//!
//! Every value of `C` is one chain of multiply-adds over `K` in order, then added to `C`: its bits depend on neither
//! `M`, `N`, the strides nor the machine. Libraries change the order with the size, and pack both operands in every
//! call; here the caller chooses layouts in which nothing needs packing. Threads are the caller's.

use super::vector::ARCH;

/// `A`: element `(m, k)` lies at `m * row + k * inner`.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) row: usize,
    pub(crate) inner: usize,
}

/// `B`: element `(k, n)` lies at `k * row + n`.
#[derive(Clone, Copy)]
pub(crate) struct Right<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) row: usize,
}

/// `C`: element `(m, n)` lies at `m * row + n`; it is added to or written.
pub(crate) struct Out<'a> {
    pub(crate) values: &'a mut [f32],
    pub(crate) row: usize,
    pub(crate) add: bool,
}

/// `(M, N, K)`.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

/// Columns that are computed together: two AVX-512 registers.
pub(crate) const PANEL: usize = 32;

/// The product, by the best instruction set of this machine.
pub(crate) fn product(shape: Shape, left: Left, right: Right, out: Out) {
    let Shape { m, n, k } = shape;
    if m == 0 || n == 0 {
        return;
    }
    if k > 0 {
        let last_left = (m - 1) * left.row + (k - 1) * left.inner;
        let last_right = (k - 1) * right.row + n - 1;
        assert!(left.values.len() > last_left, "product: A holds {} values, not {last_left}", left.values.len());
        assert!(right.values.len() > last_right, "product: B holds {} values, not {last_right}", right.values.len());
    }
    assert!(out.values.len() >= (m - 1) * out.row + n, "product: C holds {} values", out.values.len());
    ARCH.dispatch(Dispatch { shape, left, right, out });
}

struct Dispatch<'a> {
    shape: Shape,
    left: Left<'a>,
    right: Right<'a>,
    out: Out<'a>,
}

impl pulp::WithSimd for Dispatch<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let Self { shape, left, right, out } = self;
        // Rows and registers that fit the instruction set: accumulators, a panel's row, and one value of A.
        match S::F32_LANES {
            16 => panels::<S, 8, 2, 1>(simd, shape, left, right, out),
            8 => panels::<S, 3, 4, 2>(simd, shape, left, right, out),
            4 => panels::<S, 2, 8, 4>(simd, shape, left, right, out),
            _ => panels::<S, 1, 32, 16>(simd, shape, left, right, out),
        }
    }
}

/// Panels of `V` registers, then one of half as many (`H`) if that many columns are left, then one that is not whole.
#[inline(always)]
fn panels<S: pulp::Simd, const R: usize, const V: usize, const H: usize>(
    simd: S,
    s: Shape,
    left: Left,
    right: Right,
    mut out: Out,
) {
    let mut column = 0;
    while column + PANEL <= s.n {
        rows::<S, R, V, true>(simd, s, left, right, &mut out, column);
        column += PANEL;
    }
    if column + PANEL / 2 <= s.n {
        rows::<S, R, H, true>(simd, s, left, right, &mut out, column);
        column += PANEL / 2;
    }
    if column < s.n {
        rows::<S, R, H, false>(simd, s, left, right, &mut out, column);
    }
}

#[inline(always)]
fn rows<S: pulp::Simd, const R: usize, const V: usize, const WHOLE: bool>(
    simd: S,
    s: Shape,
    left: Left,
    right: Right,
    out: &mut Out,
    column: usize,
) {
    let mut row = 0;
    while row + R <= s.m {
        tile::<S, R, V, WHOLE>(simd, s, left, right, out, (row, column));
        row += R;
    }
    while row < s.m {
        tile::<S, 1, V, WHOLE>(simd, s, left, right, out, (row, column));
        row += 1;
    }
}

/// `R` rows of one panel. All `R * V` sums stay in registers.
#[inline(always)]
fn tile<S: pulp::Simd, const R: usize, const V: usize, const WHOLE: bool>(
    simd: S,
    s: Shape,
    left: Left,
    right: Right,
    out: &mut Out,
    (row, column): (usize, usize),
) {
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    let width = if WHOLE { V * S::F32_LANES } else { s.n - column };
    #[allow(unsafe_code)]
    // SAFETY: `product` asserts that the last element of each operand lies in its slice; rows up to `row + R`,
    // columns up to `column + width` and all `k` lie before it. A load of a whole panel is within `n` columns. With
    // `k = 0` nothing is asserted and nothing read: the pointers are therefore made by wrapping additions.
    unsafe {
        let a: [*const f32; R] = std::array::from_fn(|r| left.values.as_ptr().wrapping_add((row + r) * left.row));
        let mut b = right.values.as_ptr().wrapping_add(column);
        let mut at = 0;
        for i in 0..s.k {
            let panel: [S::f32s; V] = if WHOLE {
                std::array::from_fn(|v| b.cast::<S::f32s>().add(v).read_unaligned())
            } else {
                let values = std::slice::from_raw_parts(b, width);
                std::array::from_fn(|v| simd.partial_load_f32s(&values[(v * S::F32_LANES).min(width)..]))
            };
            for r in 0..R {
                let value = simd.splat_f32s(*a[r].add(at));
                for v in 0..V {
                    sums[r][v] = simd.mul_add_f32s(value, panel[v], sums[r][v]);
                }
            }
            if i + 1 < s.k {
                at += left.inner;
                b = b.add(right.row);
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        let c = &mut out.values[(row + r) * out.row + column..][..width];
        store::<S, V, WHOLE>(simd, sums, c, out.add);
    }
}

#[inline(always)]
fn store<S: pulp::Simd, const V: usize, const WHOLE: bool>(simd: S, sums: [S::f32s; V], c: &mut [f32], add: bool) {
    if WHOLE {
        let (c, _) = S::as_mut_simd_f32s(c);
        for v in 0..V {
            c[v] = if add { simd.add_f32s(c[v], sums[v]) } else { sums[v] };
        }
        return;
    }
    let mut row = [0f32; PANEL];
    S::as_mut_simd_f32s(&mut row).0[..V].copy_from_slice(&sums);
    for (c, sum) in c.iter_mut().zip(row) {
        *c = if add { *c + sum } else { sum };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reckon_datasets::Counted;

    #[test]
    fn a_product_is_a_chain_of_multiply_adds_in_order_for_any_shape_and_stride() {
        let mut random = Counted::new(&[1]);
        for (m, n, k) in [(1, 1, 1), (8, 32, 7), (9, 33, 16), (17, 64, 3), (3, 80, 40), (2, 5, 0), (25, 31, 100)] {
            for transposed in [false, true] {
                let mut draw = |n: usize| (0..n).map(|_| random.normal() as f32).collect::<Vec<_>>();
                let (a, b, c) = (draw(m * k + 3), draw(k * (n + 2)), draw(m * (n + 1)));
                let (row, inner) = if transposed { (1, m) } else { (k, 1) };
                let mut got = c.clone();
                let out = Out { values: &mut got, row: n + 1, add: true };
                product(Shape { m, n, k }, Left { values: &a, row, inner }, Right { values: &b, row: n + 2 }, out);
                let mut expected = c;
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let chain = (0..k).fold(0f32, |sum, x| a[i * row + x * inner].mul_add(b[x * (n + 2) + j], sum));
                    expected[i * (n + 1) + j] += chain;
                }
                assert_eq!(got, expected, "{m} x {n} x {k}, transposed: {transposed}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "B holds 11 values")]
    fn an_operand_that_is_too_short_is_refused() {
        let out = Out { values: &mut [0.0; 4], row: 2, add: false };
        let left = Left { values: &[0.0; 12], row: 6, inner: 1 };
        product(Shape { m: 2, n: 2, k: 6 }, left, Right { values: &[0.0; 11], row: 2 }, out);
    }
}
