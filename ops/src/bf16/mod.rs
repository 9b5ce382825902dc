//! The matrix product of bf16 operands: `C (M, N) = E + A (M, K) B (K, N)`, summed in fp32 from what the epilogue `E`
//! says. Three ways to compute it, the best that the machine has: AMX tiles, the dot products of AVX-512 BF16, and
//! multiply-adds of widened values.
//!
//! A value of `C` is one chain over `K` that starts in `E`, and depends on nothing but its row of `A` and its column of
//! `B`: on one unit its bits are the same whatever `M` and `N` are. Between units the order of additions differs.
//! How operands are laid out is in `tiles`.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
mod tiles;

use std::cell::Cell;
use std::ops::Range;
use std::sync::LazyLock;

use tiles::{DEPTH, SIDE, Tile, turned};
pub(crate) use tiles::{Matrix, Operand};

use crate::product::{Epilogue, Out};
use crate::team::Team;

/// What multiplies bf16 matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Tiles of AMX (`tdpbf16ps`).
    Amx,
    /// Dot products of pairs in AVX-512 BF16 (`vdpbf16ps`).
    Avx512,
    /// fp32 multiply-adds of widened values.
    Widened,
}

impl Unit {
    /// The best unit of this machine, looked for once.
    pub fn of_this_machine() -> Self {
        static UNIT: LazyLock<Unit> = LazyLock::new(Unit::detect);
        *UNIT
    }

    /// What it is called where a user reads of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amx => "AMX tiles",
            Self::Avx512 => "AVX-512 BF16",
            Self::Widened => "fp32 multiply-adds of widened values (no bf16 unit here)",
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn detect() -> Self {
        match () {
            () if amx::permitted() => Self::Amx,
            () if avx512::there() => Self::Avx512,
            () => Self::Widened,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn detect() -> Self {
        Self::Widened
    }
}

/// Rows of `A`, and tiles along `K`, that are multiplied with all of `B` before the next ones: a MiB, which stays in the
/// second cache.
const ROWS_AT_A_TIME: usize = 512;
const TILES_AT_A_TIME: usize = 32;
/// Rows and columns of a block of `C`: two tiles each way.
const BLOCK: usize = 2 * SIDE;

/// `left (M, K)` times `right (K, N)`, shared by the team along the longer side of `C`.
pub(crate) fn product(team: &Team, unit: Unit, left: &Operand, right: &Operand, out: Out) {
    let (m, n) = (left.outer, right.outer);
    assert_eq!(left.inner, right.inner, "bf16 product: inner dimensions");
    out.assert_holds(m, n);
    if m > n {
        let height = BLOCK * team.piece(m.div_ceil(BLOCK));
        team.each(out.rows(m, height), |(first, mut out)| {
            sum_part(unit, left, first..m.min(first + height), right, 0..n, &mut out);
        });
    } else {
        let width = BLOCK * team.piece(n.div_ceil(BLOCK));
        team.each(out.columns(n, width), |(first, mut out)| {
            sum_part(unit, left, 0..m, right, first..n.min(first + width), &mut out);
        });
    }
}

/// The `rows` and `columns` of a product, which begin where `out` does.
fn sum_part(unit: Unit, left: &Operand, rows: Range<usize>, right: &Operand, columns: Range<usize>, out: &mut Out) {
    for (part, tiles) in portions(left, &rows) {
        for column in columns.clone().step_by(BLOCK) {
            let panels = right.pair(column / SIDE, &tiles);
            let place = Place { row: part.start - rows.start, column: column - columns.start };
            let strip = Strip { rows: &part, tiles: &tiles, panels, width: BLOCK.min(columns.end - column), place };
            strip.sum(unit, left, out);
        }
    }
}

/// `left (M, N)` times weights `(N, K)` that are laid out as the right side of the product `x Wᵀ`: their tiles are turned
/// as they are used, which costs a sixth of what is multiplied with them.
pub(crate) fn product_turned(team: &Team, unit: Unit, left: &Operand, weights: &Operand, out: Out) {
    let (m, k) = (left.outer, weights.inner);
    assert_eq!(left.inner, weights.outer, "bf16 product: inner dimensions");
    out.assert_holds(m, k);
    let width = DEPTH * team.piece(weights.tiles());
    team.each(out.columns(k, width), |(first, mut out)| {
        let mut scratch = TURNED.take();
        for (rows, tiles) in portions(left, &(0..m)) {
            for column in (first..k.min(first + width)).step_by(DEPTH) {
                turned(weights, column / DEPTH, 2 * tiles.start..2 * tiles.end, &mut scratch);
                let panels = scratch.pair(0, &(0..tiles.len()));
                let place = Place { row: rows.start, column: column - first };
                let strip = Strip { rows: &rows, tiles: &tiles, panels, width: BLOCK.min(k - column), place };
                strip.sum(unit, left, &mut out);
            }
        }
        TURNED.set(scratch);
    });
}

thread_local! {
    // Used again by every product of a thread.
    static TURNED: Cell<Operand> = const { Cell::new(Operand::EMPTY) };
}

/// Rows and inner tiles that are done one after the other.
fn portions(left: &Operand, rows: &Range<usize>) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let (end, tiles) = (rows.end, left.tiles());
    rows.clone().step_by(ROWS_AT_A_TIME).flat_map(move |row| {
        let rows = row..end.min(row + ROWS_AT_A_TIME);
        (0..tiles).step_by(TILES_AT_A_TIME).map(move |t| (rows.clone(), t..tiles.min(t + TILES_AT_A_TIME)))
    })
}

/// Where in what is written the first value of a strip lies.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    column: usize,
}

/// Rows of the left side by two panels of the right one, over some of the inner tiles.
struct Strip<'a> {
    rows: &'a Range<usize>,
    tiles: &'a Range<usize>,
    panels: [&'a [Tile]; 2],
    /// Columns that there are of the two panels'.
    width: usize,
    place: Place,
}

/// A block of `C` to be summed: it starts as `start` says and is left in `out`, each with the values between its rows.
struct Block<'a> {
    lefts: [&'a [Tile]; 2],
    rights: [&'a [Tile]; 2],
    start: (*const f32, usize),
    out: (*mut f32, usize),
}

/// A block's values where the matrix ends within it.
#[repr(align(64))]
struct Edge([[f32; BLOCK]; BLOCK]);

static ZEROS: [f32; BLOCK] = [0.0; BLOCK];

impl Strip<'_> {
    fn sum(&self, unit: Unit, left: &Operand, out: &mut Out) {
        let epilogue = if self.tiles.start == 0 { out.epilogue } else { Epilogue::Accumulate };
        if unit == Unit::Widened {
            return portable::sum(self, left, epilogue, out);
        }
        let (Place { row: first, column }, width) = (self.place, self.width);
        for row in self.rows.clone().step_by(BLOCK) {
            let (height, at) = (BLOCK.min(self.rows.end - row), first + row - self.rows.start);
            let (lefts, rights) = (left.pair(row / SIDE, self.tiles), self.panels);
            let (values, stride) = (out.matrix.block(at, column, height, width), out.matrix.row());
            let start = match epilogue {
                Epilogue::None => (ZEROS.as_ptr(), 0),
                Epilogue::Accumulate => (values.cast_const(), stride),
                Epilogue::Bias(bias) => (bias[column..].as_ptr(), 0),
                Epilogue::Residual(x) => (x[at * stride + column..].as_ptr(), stride),
            };
            if (height, width) == (BLOCK, BLOCK) {
                sum(unit, Block { lefts, rights, start, out: (values, stride) });
                continue;
            }
            let mut edge = Edge([[0.0; BLOCK]; BLOCK]);
            for (r, edge) in edge.0[..height].iter_mut().enumerate() {
                #[allow(unsafe_code)]
                // SAFETY: `Out::assert_holds` has seen that `height` rows of `width` values lie where a block starts.
                let from = unsafe { std::slice::from_raw_parts(start.0.add(r * start.1), width) };
                edge[..width].copy_from_slice(from);
            }
            let values = edge.0.as_mut_ptr().cast::<f32>();
            sum(unit, Block { lefts, rights, start: (values, BLOCK), out: (values, BLOCK) });
            for (r, edge) in edge.0[..height].iter().enumerate() {
                out.matrix.part(at + r, column..column + width).copy_from_slice(&edge[..width]);
            }
        }
    }
}

/// Sums a block by one of the units.
fn sum(unit: Unit, block: Block) {
    match unit {
        #[cfg(target_arch = "x86_64")]
        Unit::Amx => amx::sum(block),
        #[cfg(target_arch = "x86_64")]
        Unit::Avx512 => avx512::sum(block),
        _ => unreachable!("widened values are multiplied as fp32"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use reckon_datasets::Counted;

    const SHAPES: [(usize, usize, usize); 7] =
        [(1, 1, 1), (1, 48, 64), (16, 16, 32), (33, 31, 65), (70, 100, 40), (5, 7, 1100), (530, 40, 33)];

    fn draw(seed: u64, n: usize) -> Vec<f32> {
        let mut random = Counted::new(&[seed]);
        (0..n).map(|_| random.normal() as f32).collect()
    }

    fn rows(values: &[f32], width: usize) -> Matrix<'_> {
        Matrix { values, row: width, rows: values.len() / width.max(1), width }
    }

    /// What this machine has, and AMX, whose instructions are computed where it has none.
    fn units() -> Vec<Unit> {
        let all = [Unit::Widened, Unit::Avx512, Unit::Amx];
        let there = |unit: &Unit| match unit {
            #[cfg(target_arch = "x86_64")]
            Unit::Avx512 => avx512::there(),
            #[cfg(target_arch = "x86_64")]
            Unit::Amx => amx::for_tests(),
            unit => *unit == Unit::Widened,
        };
        all.into_iter().filter(there).collect()
    }

    /// `sum over i of a (m, i) b (i, n)` of values rounded to bf16, with the sum of what is added in magnitude.
    fn exact(k: usize, a: impl Fn(usize) -> f32, b: impl Fn(usize) -> f32, start: f32) -> (f64, f64) {
        let half = |x: f32| bf16::from_f32(x).to_f64();
        let terms = (0..k).map(|i| half(a(i)) * half(b(i))).chain([f64::from(start)]);
        terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
    }

    #[test]
    fn every_unit_gives_the_product_of_the_rounded_operands() {
        Team::with(3, |team| {
            for (unit, shape) in units().into_iter().flat_map(|unit| SHAPES.map(|shape| (unit, shape))) {
                gives_the_product_of_the_rounded_operands(team, unit, shape);
            }
        });
    }

    fn gives_the_product_of_the_rounded_operands(team: &Team, unit: Unit, (m, n, k): (usize, usize, usize)) {
        let (a, b, c, bias) = (draw(1, m * k), draw(2, n * k), draw(3, m * (n + 3)), draw(4, n));
        let (mut left, mut right) = (Operand::EMPTY, Operand::EMPTY);
        left.left_of_rows(team, Matrix { rows: m, ..rows(&a, k) });
        right.right_of_rows(team, Matrix { rows: n, ..rows(&b, k) });
        for epilogue in [Epilogue::None, Epilogue::Accumulate, Epilogue::Bias(&bias), Epilogue::Residual(&c)] {
            let mut got = c.clone();
            product(team, unit, &left, &right, Out::new(&mut got, n + 3, epilogue));
            for (at, (&got, &was)) in got.iter().zip(&c).enumerate() {
                let (i, j) = (at / (n + 3), at % (n + 3));
                let start = match epilogue {
                    _ if j >= n => {
                        assert_eq!(got, was, "{unit:?}: beyond the columns");
                        continue;
                    }
                    Epilogue::None => 0.0,
                    Epilogue::Accumulate | Epilogue::Residual(_) => was,
                    Epilogue::Bias(bias) => bias[j],
                };
                let (sum, size) = exact(k, |x| a[i * k + x], |x| b[j * k + x], start);
                let error = (f64::from(got) - sum).abs();
                assert!(error <= 1e-6 * (1.0 + size), "{unit:?}, {m} {n} {k}, ({i}, {j}): {got}, not {sum}");
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_whatever_rows_columns_and_threads_are_beside_it() {
        for unit in units() {
            for (m, n, k) in SHAPES {
                let (a, b) = (draw(1, m * k), draw(2, n * k));
                let run = |team: &Team, a: &[f32], m, b: &[f32], n| {
                    let (mut left, mut right) = (Operand::EMPTY, Operand::EMPTY);
                    left.left_of_rows(team, Matrix { rows: m, ..rows(a, k) });
                    right.right_of_rows(team, Matrix { rows: n, ..rows(b, k) });
                    let mut c = vec![f32::NAN; m * n];
                    product(team, unit, &left, &right, Out::new(&mut c, n, Epilogue::None));
                    c
                };
                let (together, alone) = (Team::with(3, |team| run(team, &a, m, &b, n)), &Team::alone());
                for i in [0, m / 2, m - 1] {
                    assert_eq!(run(alone, &a[i * k..][..k], 1, &b, n), together[i * n..][..n], "{unit:?}, {m} {n} {k}");
                    assert_eq!(run(alone, &a[i * k..][..k], 1, &b[(n - 1) * k..], 1), together[i * n + n - 1..][..1]);
                }
            }
        }
    }

    #[test]
    fn columns_and_turned_tiles_are_the_rows_of_the_transposed_matrix() {
        let team = &Team::alone();
        for (unit, (m, n, k)) in units().into_iter().flat_map(|unit| SHAPES.map(|shape| (unit, shape))) {
            let (dy, x, w) = (draw(1, m * n), draw(2, m * k), draw(3, n * k));
            let transposed = |values: &[f32], width: usize| -> Vec<f32> {
                (0..width).flat_map(|c| values.iter().skip(c).step_by(width)).copied().collect()
            };
            let run = |left: &Operand, right: &Operand| {
                let mut c = vec![f32::NAN; left.outer * right.outer];
                product(team, unit, left, right, Out::new(&mut c, right.outer, Epilogue::None));
                c
            };
            let (dy_t, x_t, w_t) = (transposed(&dy, n), transposed(&x, k), transposed(&w, k));
            let mut sides: [Operand; 6] = Default::default();
            sides[0].left_of_columns(team, rows(&dy, n));
            sides[1].right_of_columns(team, rows(&x, k));
            sides[2].left_of_rows(team, rows(&dy_t, m));
            sides[3].right_of_rows(team, rows(&x_t, m));
            assert_eq!(run(&sides[0], &sides[1]), run(&sides[2], &sides[3]), "{unit:?}, {m} {n} {k}");

            sides[0].left_of_rows(team, rows(&dy, n));
            sides[4].right_of_rows(team, rows(&w, k));
            sides[5].right_of_rows(team, rows(&w_t, n));
            let mut dx = vec![f32::NAN; m * k];
            product_turned(team, unit, &sides[0], &sides[4], Out::new(&mut dx, k, Epilogue::None));
            assert_eq!(dx, run(&sides[0], &sides[5]), "{unit:?}, {m} {n} {k}");
        }
    }
}
