//! The product in tiles of a few rows and registers, for each instruction set: what is read often is put into order, then
//! panel by panel and strip by strip all sums of a tile stay in registers. That operands are long enough has been seen.

use std::cell::Cell;

use super::{Epilogue, Left, Out, PANEL, Right, Shape};
use crate::vector::{LANES, copy_row, grown, prefetch_line};

/// A product of operands that hold what their shape says, for the best instruction set.
pub(super) struct Dispatch<'a> {
    pub(super) shape: Shape,
    pub(super) left: Left<'a>,
    pub(super) right: Right<'a>,
    pub(super) out: Out<'a>,
}

impl pulp::WithSimd for Dispatch<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        // Rows and registers of a tile that fit the instruction set: its sums, a row of `B`, and one value of `A`.
        match S::F32_LANES {
            16 | 4 => self.blocked::<S, 8, 3>(simd),
            8 => self.blocked::<S, 6, 2>(simd),
            _ => self.blocked::<S, 2, 3>(simd),
        }
    }
}

/// `A` as tiles read it: row `r` of the strip that begins at row `first` lies at `first * strip + r * row`, and its
/// elements `step` apart.
#[derive(Clone, Copy)]
struct Strips<'a> {
    values: &'a [f32],
    strip: usize,
    row: usize,
    step: usize,
}

/// Columns of `B` side by side: rows `step` apart.
#[derive(Clone, Copy)]
struct Panel<'a> {
    values: &'a [f32],
    step: usize,
    width: usize,
    /// What is read after it; empty if that is not known.
    next: &'a [f32],
}

impl Panel<'_> {
    /// The `width` columns from `first` on.
    #[inline(always)]
    fn columns(self, first: usize, width: usize) -> Self {
        Self { values: &self.values[first.min(self.values.len())..], width, ..self }
    }

    /// Where a strip, which fetches a line in each step, begins to fetch the next panel: each its share, and what is
    /// there already when all is fetched.
    #[inline(always)]
    fn fetched_by(self, strip: usize, k: usize) -> *const f32 {
        let start = strip * k * LANES;
        if start < self.next.len().min(k * PANEL) { self.next[start..].as_ptr() } else { self.values.as_ptr() }
    }
}

impl Dispatch<'_> {
    /// Puts into order what will be read often, then computes panel by panel, in tiles of `R` rows and `V` registers.
    #[inline(always)]
    fn blocked<S: pulp::Simd, const R: usize, const V: usize>(self, simd: S) {
        let Self { shape: s, left, right, mut out } = self;
        let strips = Strips { values: left.values, strip: left.row, row: left.row, step: left.inner };
        // Elements far apart share few sets of the first cache, and every panel reads them again.
        if left.inner != 1 && s.n > 2 * PANEL {
            let mut packed = STRIPS.take();
            pack_strips::<R>(s, left, &mut packed);
            let strips = Strips { values: &packed, strip: s.k, row: 1, step: R };
            panels::<S, R, V>(simd, s, strips, right, &mut out);
            STRIPS.set(packed);
        } else {
            panels::<S, R, V>(simd, s, strips, right, &mut out);
        }
    }
}

thread_local! {
    // Used again by every product of a thread: zeroing and returning it would cost a tenth of a small one.
    static STRIPS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static COPY: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Strips of `R` rows, `(K, R)` each. What lies beyond the last row is left as it is, for no tile reads it.
#[inline(always)]
fn pack_strips<const R: usize>(s: Shape, left: Left, packed: &mut Vec<f32>) {
    let strip = R * s.k;
    let packed = grown(packed, s.m.div_ceil(R) * strip);
    // Two strips of a transposed `A` at a time: together they read whole cache lines.
    let whole = if left.row == 1 { s.m / (2 * R) * 2 * R } else { 0 };
    for (pair, first) in packed.chunks_exact_mut(2 * strip).zip((0..whole).step_by(2 * R)) {
        let (one, other) = pair.split_at_mut(strip);
        let columns = one.chunks_exact_mut(R).zip(other.chunks_exact_mut(R));
        for ((one, other), row) in columns.zip(left.values[first..].chunks(left.inner)) {
            let (to_one, to_other) = row[..2 * R].split_at(R);
            one.copy_from_slice(to_one);
            other.copy_from_slice(to_other);
        }
    }
    for (strip, first) in packed.chunks_exact_mut(strip).zip((0..s.m).step_by(R)).skip(whole / R) {
        let rows = R.min(s.m - first);
        for (k, column) in strip.chunks_exact_mut(R).enumerate() {
            let values = &left.values[first * left.row + k * left.inner..];
            column[..rows].iter_mut().zip(values.iter().step_by(left.row)).for_each(|(to, from)| *to = *from);
        }
    }
}

/// From this many strips on a panel is copied before it is read: once instead of once a strip from far apart.
const STRIPS_WORTH_A_COPY: usize = 6;

#[inline(always)]
fn panels<S: pulp::Simd, const R: usize, const V: usize>(simd: S, s: Shape, left: Strips, right: Right, out: &mut Out) {
    let mut copy = COPY.take();
    let copies = right.row != PANEL && s.m >= STRIPS_WORTH_A_COPY * R;
    for column in (0..s.n).step_by(PANEL) {
        let width = PANEL.min(s.n - column);
        let next = right.next;
        let mut panel = Panel { values: right.values, step: right.row, width, next }.columns(column, width);
        if copies {
            for (k, row) in grown(&mut copy, s.k * PANEL).chunks_exact_mut(PANEL).enumerate() {
                copy_row(&panel.values[k * right.row..][..width], &mut row[..width]);
            }
            panel = Panel { values: &copy, step: PANEL, width, next };
        }
        let mut done = 0;
        while done < width {
            let registers = V.min((width - done) / S::F32_LANES);
            let part = panel.columns(done, if registers > 0 { registers * S::F32_LANES } else { width - done });
            match registers {
                0 => rows::<S, R, 1, false>(simd, s, left, part, out, column + done),
                1 => rows::<S, R, 1, true>(simd, s, left, part, out, column + done),
                2 => rows::<S, R, 2, true>(simd, s, left, part, out, column + done),
                _ => rows::<S, R, V, true>(simd, s, left, part, out, column + done),
            }
            done += part.width;
        }
    }
    COPY.set(copy);
}

#[inline(always)]
fn rows<S: pulp::Simd, const R: usize, const V: usize, const WHOLE: bool>(
    simd: S,
    s: Shape,
    left: Strips,
    panel: Panel,
    out: &mut Out,
    column: usize,
) {
    for first in (0..s.m).step_by(R) {
        if first + R <= s.m {
            // Distances that the compiler knows cost no registers.
            match (left.step, panel.step) {
                (1, PANEL) => tile::<S, R, V, WHOLE>(
                    simd,
                    s.k,
                    Strips { step: 1, ..left },
                    Panel { step: PANEL, ..panel },
                    (first, 0),
                    column,
                    out,
                ),
                (step, PANEL) if step == R && left.row == 1 => tile::<S, R, V, WHOLE>(
                    simd,
                    s.k,
                    Strips { step: R, row: 1, ..left },
                    Panel { step: PANEL, ..panel },
                    (first, 0),
                    column,
                    out,
                ),
                _ => tile::<S, R, V, WHOLE>(simd, s.k, left, panel, (first, 0), column, out),
            }
        } else {
            // A closure would be compiled without the instruction set.
            let mut r = 0;
            while r < s.m - first {
                if R > 4 && s.m - first - r >= 4 {
                    tile::<S, 4, V, WHOLE>(simd, s.k, left, panel, (first, r), column, out);
                    r += 4;
                } else {
                    tile::<S, 1, V, WHOLE>(simd, s.k, left, panel, (first, r), column, out);
                    r += 1;
                }
            }
        }
    }
}

/// Steps over `K` that are written out.
const UNROLL: usize = 4;

/// `R` rows of one panel, from row `r` of the strip at `first` on. All `R * V` sums stay in registers.
#[inline(always)]
fn tile<S: pulp::Simd, const R: usize, const V: usize, const WHOLE: bool>(
    simd: S,
    k: usize,
    left: Strips,
    panel: Panel,
    (first, r): (usize, usize),
    column: usize,
    out: &mut Out,
) {
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    let start = left.values.as_ptr().wrapping_add(first * left.strip + r * left.row);
    let mut a: [*const f32; R] = std::array::from_fn(|i| start.wrapping_add(i * left.row));
    if left.row != 1 {
        // Rows far apart need a register each. What the compiler knows to be equal distances it computes again at
        // every step, from a value that it keeps in memory: a tenth of the time.
        a = std::hint::black_box(a);
    }
    let mut b = panel.values.as_ptr();
    let mut ahead = panel.fetched_by(first / R, k);
    let mut at = 0;
    let unrolled = k / UNROLL * UNROLL;
    while at < unrolled {
        for i in 0..UNROLL {
            prefetch_line(ahead.wrapping_add(i * LANES));
            let b = b.wrapping_add(i * panel.step);
            multiply_add::<S, R, V, WHOLE>(simd, &mut sums, &a, (at + i) * left.step, b, panel.width);
        }
        b = b.wrapping_add(UNROLL * panel.step);
        ahead = ahead.wrapping_add(UNROLL * LANES);
        at += UNROLL;
    }
    while at < k {
        multiply_add::<S, R, V, WHOLE>(simd, &mut sums, &a, at * left.step, b, panel.width);
        b = b.wrapping_add(panel.step);
        at += 1;
    }
    for (i, sums) in sums.into_iter().enumerate() {
        let (m, epilogue) = (first + r + i, out.epilogue);
        let at = m * out.matrix.row() + column;
        let values = out.matrix.part(m, column..column + panel.width);
        let sums = match epilogue {
            Epilogue::None => sums,
            Epilogue::Accumulate => plus::<S, V, WHOLE>(simd, sums, values),
            Epilogue::Bias(b) => plus::<S, V, WHOLE>(simd, sums, &b[column..][..panel.width]),
            Epilogue::Residual(x) => plus::<S, V, WHOLE>(simd, sums, &x[at..][..panel.width]),
        };
        store::<S, V, WHOLE>(simd, sums, values);
    }
}

/// One step over `K`: a value of each row times a row of the panel.
#[inline(always)]
fn multiply_add<S: pulp::Simd, const R: usize, const V: usize, const WHOLE: bool>(
    simd: S,
    sums: &mut [[S::f32s; V]; R],
    a: &[*const f32; R],
    at: usize,
    b: *const f32,
    width: usize,
) {
    #[allow(unsafe_code)]
    // SAFETY: `product` asserts that the last element of each operand lies in its slice, and copies hold all that they
    // were made for; the rows of a tile and `width` columns at every `k` lie before those ends. A whole panel is `V`
    // registers wide.
    unsafe {
        let row: [S::f32s; V] = if WHOLE {
            std::array::from_fn(|v| b.cast::<S::f32s>().add(v).read_unaligned())
        } else {
            load::<S, V, false>(simd, std::slice::from_raw_parts(b, width))
        };
        for (r, sums) in sums.iter_mut().enumerate() {
            let value = simd.splat_f32s(*a[r].add(at));
            for v in 0..V {
                sums[v] = simd.mul_add_f32s(value, row[v], sums[v]);
            }
        }
    }
}

/// A row of the panel's width in registers.
#[inline(always)]
fn load<S: pulp::Simd, const V: usize, const WHOLE: bool>(simd: S, values: &[f32]) -> [S::f32s; V] {
    if WHOLE {
        let (whole, _) = S::as_simd_f32s(values);
        std::array::from_fn(|v| whole[v])
    } else {
        std::array::from_fn(|v| simd.partial_load_f32s(&values[(v * S::F32_LANES).min(values.len())..]))
    }
}

#[inline(always)]
fn plus<S: pulp::Simd, const V: usize, const WHOLE: bool>(
    simd: S,
    mut sums: [S::f32s; V],
    values: &[f32],
) -> [S::f32s; V] {
    let values = load::<S, V, WHOLE>(simd, values);
    for v in 0..V {
        sums[v] = simd.add_f32s(values[v], sums[v]);
    }
    sums
}

#[inline(always)]
fn store<S: pulp::Simd, const V: usize, const WHOLE: bool>(simd: S, sums: [S::f32s; V], c: &mut [f32]) {
    for (v, sum) in sums.into_iter().enumerate() {
        if WHOLE {
            S::as_mut_simd_f32s(c).0[v] = sum;
        } else {
            let start = (v * S::F32_LANES).min(c.len());
            simd.partial_store_f32s(&mut c[start..], sum);
        }
    }
}
