//! The one matrix product that linear layers and attention stand on: `C (M, N) = [C +] A (M, K) B (K, N)`.
//!
//! Every value of `C` is what [`Epilogue`] says, to which are added, in order, chains of multiply-adds over [`chain`] steps
//! of `K` each: its bits depend on neither `M`, `N`, the strides nor the machine. Libraries change the order with the
//! size, and pack both operands in every call; here the caller chooses layouts in which the forward needs no packing.
//! Threads are the caller's: each computes some columns or rows of `C`. How a part is computed is in `kernel`.

mod kernel;

use super::matrix::MatrixMut;
use super::team::Team;
use super::vector::ARCH;
use kernel::Dispatch;

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
    /// What the caller will read next, if that is known: it is fetched meanwhile.
    pub(crate) next: &'a [f32],
}

impl<'a> Right<'a> {
    /// All that follows is unknown.
    pub(crate) fn new(values: &'a [f32], row: usize) -> Self {
        Self { values, row, next: &[] }
    }
}

/// `C`, and what it is added to.
pub(crate) struct Out<'a> {
    pub(crate) matrix: MatrixMut<'a>,
    pub(crate) epilogue: Epilogue<'a>,
}

/// What a product is added to on its way into `C`: this way, no value of `C` is written twice.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a> {
    /// Nothing: `C` is written.
    None,
    /// What `C` holds.
    Accumulate,
    /// A bias `(N)`, in every row.
    Bias(&'a [f32]),
    /// Another matrix of `C`'s layout: the residual stream.
    Residual(&'a [f32]),
}

impl<'a> Out<'a> {
    /// Element `(m, n)` lies at `m * row + n` of `values`.
    pub(crate) fn new(values: &'a mut [f32], row: usize, epilogue: Epilogue<'a>) -> Self {
        Self { matrix: MatrixMut::new(values, row), epilogue }
    }

    /// The same, held by the result as long as that lives.
    pub(crate) fn reborrow(&mut self) -> Out<'_> {
        Out { matrix: self.matrix.reborrow(), epilogue: self.epilogue }
    }

    /// The same, but added to.
    pub(crate) fn adding(self) -> Self {
        Self { epilogue: Epilogue::Accumulate, ..self }
    }

    /// Panics unless `(M, N)` values lie in it, and in what they are added to.
    pub(crate) fn assert_holds(&self, m: usize, n: usize) {
        self.matrix.assert_holds(m, n);
        let needed = if m == 0 || n == 0 { 0 } else { (m - 1) * self.matrix.row() + n };
        match self.epilogue {
            Epilogue::None | Epilogue::Accumulate => {}
            Epilogue::Bias(b) => assert!(b.len() >= n, "product: a bias of {} values, not {n}", b.len()),
            Epilogue::Residual(x) => {
                assert!(x.len() >= needed, "product: a residual of {} values, not {needed}", x.len())
            }
        }
    }

    /// The first `m` rows, `height` at a time, each part with the row that it begins at.
    pub(crate) fn rows(self, m: usize, height: usize) -> impl Iterator<Item = (usize, Out<'a>)> {
        let (epilogue, row) = (self.epilogue, self.matrix.row());
        self.matrix
            .rows(m, height)
            .map(move |(first, matrix)| (first, Out { matrix, epilogue: epilogue.at_value(first * row) }))
    }

    /// Adds sums to what the first row is added to, column by column, as a product does.
    pub(crate) fn add_row(&mut self, sums: &[f32]) {
        let (epilogue, row) = (self.epilogue, self.matrix.part(0, 0..sums.len()));
        for (column, (to, sum)) in row.iter_mut().zip(sums).enumerate() {
            *to = match epilogue {
                Epilogue::None => *sum,
                Epilogue::Accumulate => *to + sum,
                Epilogue::Bias(b) => b[column] + sum,
                Epilogue::Residual(x) => x[column] + sum,
            };
        }
    }

    /// From row `m` and column `n` on.
    pub(crate) fn part(self, m: usize, n: usize) -> Self {
        let epilogue = self.epilogue.at_value(m * self.matrix.row()).at_column(n);
        Self { matrix: self.matrix.split_rows(m).1.split_columns(n).1, epilogue }
    }

    /// The first `n` columns, `width` at a time, each part with the column that it begins at.
    pub(crate) fn columns(self, n: usize, width: usize) -> impl Iterator<Item = (usize, Out<'a>)> {
        let epilogue = self.epilogue;
        let parts = self.matrix.split_columns(n).0.columns(width);
        parts.map(move |(first, matrix)| (first, Out { matrix, epilogue: epilogue.at_column(first) }))
    }
}

impl<'a> Epilogue<'a> {
    /// For the rows of `C` that begin with value `at`.
    fn at_value(self, at: usize) -> Self {
        match self {
            Self::Residual(x) => Self::Residual(&x[at..]),
            same => same,
        }
    }

    /// For the columns of `C` from `column` on.
    fn at_column(self, column: usize) -> Self {
        match self {
            Self::Bias(b) => Self::Bias(&b[column..]),
            Self::Residual(x) => Self::Residual(&x[column..]),
            same => same,
        }
    }
}

/// `(M, N, K)`.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

/// Columns that are computed together: three AVX-512 registers. With two, the loads of `A` keep the multipliers waiting.
pub(crate) const PANEL: usize = 48;

/// Rows of a tile, at most: parts of so many rows leave none half empty.
pub(crate) const STRIP: usize = 16;

/// Steps over `K` of one chain. A short inner dimension is one; of a long one, rows of `A` leave the second cache before
/// the next panel unless it is cut.
pub(crate) fn chain(k: usize) -> usize {
    if k <= 1024 { k } else { 512 }
}

/// The product, by the best instruction set of this machine.
pub(crate) fn product(shape: Shape, left: Left, right: Right, out: Out) {
    in_chains(shape, left, right, out, chain(shape.k));
}

/// The product in one chain over all of `K`, however long that is: for sums that are elsewhere continued from block to
/// block.
pub(crate) fn product_in_one_chain(shape: Shape, left: Left, right: Right, out: Out) {
    in_chains(shape, left, right, out, shape.k);
}

fn in_chains(shape: Shape, left: Left, right: Right, mut out: Out, chain: usize) {
    let Shape { m, n, k } = shape;
    if m == 0 || n == 0 {
        return;
    }
    out.assert_holds(m, n);
    if k > 0 {
        let last_left = (m - 1) * left.row + (k - 1) * left.inner;
        let last_right = (k - 1) * right.row + n - 1;
        assert!(left.values.len() > last_left, "product: A holds {} values, not {last_left}", left.values.len());
        assert!(right.values.len() > last_right, "product: B holds {} values, not {last_right}", right.values.len());
    }
    let mut first = 0;
    loop {
        let shape = Shape { k: chain.min(k - first), ..shape };
        let left = Left { values: &left.values[(first * left.inner).min(left.values.len())..], ..left };
        let (_, values) = right.values.split_at((first * right.row).min(right.values.len()));
        let last = first + shape.k == k;
        let right = Right { values, next: if last { right.next } else { &values[shape.k * right.row..] }, ..right };
        ARCH.dispatch(Dispatch { shape, left, right, out: out.reborrow() });
        if last {
            return;
        }
        first += shape.k;
        out.epilogue = Epilogue::Accumulate;
    }
}

/// The product by all threads of a team, each some columns.
pub(crate) fn product_together(team: &Team, shape: Shape, left: Left, right: Right, out: Out) {
    let width = PANEL * team.piece(shape.n.div_ceil(PANEL));
    team.each(out.columns(shape.n, width), |(first, out)| {
        let n = width.min(shape.n - first);
        let right = Right { values: &right.values[first.min(right.values.len())..], ..right };
        product(Shape { n, ..shape }, left, right, out);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use reckon_datasets::Counted;

    #[test]
    fn a_product_is_a_chain_of_multiply_adds_in_order_for_any_shape_and_stride() {
        let mut random = Counted::new(&[1]);
        for (m, n, k) in [
            (1, 1, 1),
            (8, 32, 7),
            (9, 33, 16),
            (17, 96, 3),
            (3, 80, 40),
            (7, 57, 9),
            (2, 5, 0),
            (25, 31, 100),
            (9, 50, 2100),
        ] {
            for transposed in [false, true] {
                let mut draw = |n: usize| (0..n).map(|_| random.normal() as f32).collect::<Vec<_>>();
                let (a, b, c, bias) = (draw(m * k + 3), draw(k * (n + 2)), draw(m * (n + 1)), draw(n));
                let (row, inner) = if transposed { (1, m) } else { (k, 1) };
                for epilogue in [Epilogue::None, Epilogue::Accumulate, Epilogue::Bias(&bias), Epilogue::Residual(&c)] {
                    let mut got =
                        if matches!(epilogue, Epilogue::Accumulate) { c.clone() } else { vec![f32::NAN; c.len()] };
                    let out = Out::new(&mut got, n + 1, epilogue);
                    product(Shape { m, n, k }, Left { values: &a, row, inner }, Right::new(&b, n + 2), out);
                    for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                        let start = match epilogue {
                            Epilogue::None => 0.0,
                            Epilogue::Bias(bias) => bias[j],
                            Epilogue::Accumulate | Epilogue::Residual(_) => c[i * (n + 1) + j],
                        };
                        let expected = (0..k.max(1)).step_by(chain(k).max(1)).fold(start, |sum, first| {
                            let steps = first..k.min(first + chain(k));
                            sum + steps.fold(0f32, |sum, x| a[i * row + x * inner].mul_add(b[x * (n + 2) + j], sum))
                        });
                        assert_eq!(
                            got[i * (n + 1) + j],
                            expected,
                            "{m} x {n} x {k}, transposed: {transposed}, {epilogue:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn an_operand_that_is_too_short_is_refused() {
        let refused = std::panic::catch_unwind(|| {
            let mut values = [0.0; 4];
            let out = Out::new(&mut values, 2, Epilogue::None);
            let left = Left { values: &[0.0; 12], row: 6, inner: 1 };
            product(Shape { m: 2, n: 2, k: 6 }, left, Right::new(&[0.0; 11], 2), out);
        });
        let message = *refused.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("B holds 11 values"), "{message}");
    }
}
