//! Blocks widened in registers by AVX2: eight outputs to a register, a few registers at a time, so that the chains of a
//! row alone do not wait for themselves. What is done with the values is the caller's: multiplied, or written down.

use std::arch::x86_64::*;
use std::ops::Range;
use std::sync::LazyLock;

use super::format::{Grid, LARGE, SMALL};
use super::{Blocks, Lengths};
use crate::product::PANEL;

/// Whether the processor has it.
pub(super) fn there() -> bool {
    static THERE: LazyLock<bool> = LazyLock::new(|| {
        std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c")
    });
    *THERE
}

/// Outputs of a register.
const WIDTH: usize = 8;

/// The parts of one panel.
#[derive(Clone, Copy)]
struct Panel<'a> {
    grid: Grid,
    low: &'a [u32],
    high: &'a [u32],
    scales: &'a [u16],
    minima: &'a [u16],
    codes: &'a [i8],
    minimum_codes: &'a [i8],
}

impl<'a> Panel<'a> {
    fn of(blocks: &'a Blocks, p: usize) -> Self {
        let (grid, of) = (blocks.kind.grid(), Lengths::of(blocks.kind.grid(), blocks.k));
        Self {
            grid,
            low: &blocks.low[p * of.low..][..of.low],
            high: &blocks.high[p * of.high..][..of.high],
            scales: &blocks.scales[p * of.scales..][..of.scales],
            minima: &blocks.minima[p * of.minima..][..of.minima],
            codes: &blocks.codes[p * of.codes..][..of.codes],
            minimum_codes: &blocks.minimum_codes[p * of.minimum_codes..][..of.minimum_codes],
        }
    }
}

/// Calls a function for the bits of a grid: lower, upper, values of a group, and registers at a time.
macro_rules! by_grid {
    ($grid:expr, $function:ident($($argument:expr),*)) => {{
        #[allow(unsafe_code)]
        // SAFETY: `there` has seen the instructions; the arguments are what each function asks for.
        unsafe {
            match ($grid.low, $grid.high, $grid.group) {
                (4, 0, 32) => $function::<4, 0, 32, 3>($($argument),*),
                (4, 1, 32) => $function::<4, 1, 32, 2>($($argument),*),
                (8, 0, 32) => $function::<8, 0, 32, 3>($($argument),*),
                (2, 0, 16) => $function::<2, 0, 16, 3>($($argument),*),
                (2, 1, 16) => $function::<2, 1, 16, 2>($($argument),*),
                (4, 2, 16) => $function::<4, 2, 16, 2>($($argument),*),
                other => panic!("no type of blocks has bits {other:?}"),
            }
        }
    }};
}

/// Writes panel `p` to `out (K, PANEL)`.
pub(super) fn widen(blocks: &Blocks, p: usize, out: &mut [f32]) {
    assert!(there() && out.len() == blocks.k * PANEL);
    by_grid!(blocks.kind.grid(), widen_panel(Panel::of(blocks, p), out));
}

/// The chain of multiply-adds of `x` with the inner indices of panel `p` from `first` on.
pub(super) fn dot(blocks: &Blocks, p: usize, first: usize, x: &[f32]) -> [f32; PANEL] {
    assert!(there() && first.is_multiple_of(SMALL) && x.len().is_multiple_of(SMALL) && first + x.len() <= blocks.k);
    let mut sums = [0f32; PANEL];
    let units = first / SMALL..(first + x.len()) / SMALL;
    by_grid!(blocks.kind.grid(), dot_panel(Panel::of(blocks, p), units, x, &mut sums));
    sums
}

/// # Safety
/// The processor has the instructions; `out` holds [`PANEL`] values for each inner index of the panel.
#[allow(unsafe_code)]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn widen_panel<const LOW: i32, const HIGH: i32, const GROUP: usize, const G: usize>(
    panel: Panel,
    out: &mut [f32],
) {
    for (unit, rows) in out.chunks_exact_mut(SMALL * PANEL).enumerate() {
        for column in (0..PANEL).step_by(G * WIDTH) {
            let to = rows.as_mut_ptr().wrapping_add(column);
            // SAFETY: a unit has `SMALL` rows of `PANEL` values, and `G` registers from `column` on end within a row.
            unsafe {
                unit_of::<LOW, HIGH, GROUP, G>(&panel, unit, column, |k, values| {
                    for (g, values) in values.into_iter().enumerate() {
                        _mm256_storeu_ps(to.add(k * PANEL + g * WIDTH), values);
                    }
                });
            }
        }
    }
}

/// # Safety
/// The processor has the instructions; `x` holds [`SMALL`] values for each of the `units`, which the panel has.
#[allow(unsafe_code)]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dot_panel<const LOW: i32, const HIGH: i32, const GROUP: usize, const G: usize>(
    panel: Panel,
    units: Range<usize>,
    x: &[f32],
    sums: &mut [f32; PANEL],
) {
    for column in (0..PANEL).step_by(G * WIDTH) {
        let mut chains = [_mm256_setzero_ps(); G];
        for (unit, x) in units.clone().zip(x.chunks_exact(SMALL)) {
            let x = x.as_ptr();
            // SAFETY: a chunk has `SMALL` values.
            unsafe {
                unit_of::<LOW, HIGH, GROUP, G>(&panel, unit, column, |k, values| {
                    let x = _mm256_broadcast_ss(&*x.add(k));
                    for (chain, values) in chains.iter_mut().zip(values) {
                        *chain = _mm256_fmadd_ps(x, values, *chain);
                    }
                });
            }
        }
        for (g, chain) in chains.into_iter().enumerate() {
            let to = &mut sums[column + g * WIDTH..][..WIDTH];
            // SAFETY: `to` has as many values as a register.
            unsafe { _mm256_storeu_ps(to.as_mut_ptr(), chain) };
        }
    }
}

/// Hands the values of a unit to `take(inner index, registers)`, `G` registers of outputs from `column` on.
///
/// # Safety
/// The caller has the instructions. The panel has the unit, and `G` registers from `column` on.
#[allow(unsafe_code)]
#[inline(always)]
unsafe fn unit_of<const LOW: i32, const HIGH: i32, const GROUP: usize, const G: usize>(
    panel: &Panel,
    unit: usize,
    column: usize,
    mut take: impl FnMut(usize, [__m256; G]),
) {
    let (low, high) = (LOW as usize, HIGH as usize);
    let words = panel.low[unit * low * PANEL..][..low * PANEL].as_ptr().wrapping_add(column);
    let upper = panel.high[unit * high * PANEL..][..high * PANEL].as_ptr().wrapping_add(column);
    // SAFETY: of the instructions by the contract; of the pointers by the slices, of whose rows of `PANEL` words `G`
    // registers from `column` on are a part.
    unsafe {
        let load = |row: *const u32| -> [__m256i; G] {
            std::array::from_fn(|g| _mm256_loadu_si256(row.add(g * WIDTH).cast()))
        };
        let (low_mask, high_mask) = (_mm256_set1_epi32((1 << LOW) - 1), _mm256_set1_epi32((1 << HIGH) - 1));
        let mut top = [_mm256_setzero_si256(); G];
        for group in 0..SMALL / GROUP {
            // A loop, because a closure is not inlined here, and is then compiled without the instructions.
            let mut scales = [(_mm256_setzero_ps(), _mm256_setzero_ps()); G];
            for (g, scales) in scales.iter_mut().enumerate() {
                *scales = scale::<GROUP>(panel, unit, group, column + g * WIDTH);
            }
            for word in 0..GROUP * low / 32 {
                let mut bits = load(words.add((group * GROUP * low / 32 + word) * PANEL));
                for index in 0..32 / low {
                    let k = group * GROUP + word * (32 / low) + index;
                    if HIGH > 0 && k.is_multiple_of(32 / high.max(1)) {
                        top = load(upper.add(k / (32 / high.max(1)) * PANEL));
                    }
                    take(
                        k,
                        std::array::from_fn(|g| {
                            let mut q = _mm256_and_si256(bits[g], low_mask);
                            bits[g] = _mm256_srli_epi32::<LOW>(bits[g]);
                            if HIGH > 0 {
                                let above = _mm256_slli_epi32::<LOW>(_mm256_and_si256(top[g], high_mask));
                                q = _mm256_or_si256(q, above);
                                top[g] = _mm256_srli_epi32::<HIGH>(top[g]);
                            }
                            _mm256_fmadd_ps(_mm256_cvtepi32_ps(q), scales[g].0, scales[g].1)
                        }),
                    );
                }
            }
        }
    }
}

/// Scale and minimum of a group of a unit, for the outputs from `column` on.
///
/// # Safety
/// The caller has the instructions. The panel has the unit, and a register of outputs from `column` on.
#[allow(unsafe_code)]
#[inline(always)]
unsafe fn scale<const GROUP: usize>(panel: &Panel, unit: usize, group: usize, column: usize) -> (__m256, __m256) {
    let grid = panel.grid;
    let large = if grid.nested { unit / (LARGE / SMALL) } else { unit };
    let (at, code_at) = (large * PANEL + column, (unit * (SMALL / GROUP) + group) * PANEL + column);
    // SAFETY: of the instructions by the contract; of the places by the caller's.
    unsafe {
        let scale = number(grid.nested, panel.scales, panel.codes, at, code_at);
        if !grid.minimum {
            return (scale, _mm256_mul_ps(_mm256_set1_ps(-f32::from(grid.offset)), scale));
        }
        let minimum = number(grid.nested, panel.minima, panel.minimum_codes, at, code_at);
        (scale, if grid.nested { _mm256_xor_ps(minimum, _mm256_set1_ps(-0.0)) } else { minimum })
    }
}

/// Eight numbers in fp16, where they are nested times their codes.
///
/// # Safety
/// The caller has the instructions.
#[allow(unsafe_code)]
#[inline(always)]
unsafe fn number(nested: bool, halves: &[u16], codes: &[i8], at: usize, code_at: usize) -> __m256 {
    // SAFETY: of the instructions by the contract; each slice is as long as a register is wide.
    unsafe {
        let number = _mm256_cvtph_ps(_mm_loadu_si128(halves[at..][..WIDTH].as_ptr().cast()));
        if !nested {
            return number;
        }
        let codes = _mm_loadl_epi64(codes[code_at..][..WIDTH].as_ptr().cast());
        _mm256_mul_ps(number, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)))
    }
}
