//! Blocks by AVX-512 BF16: the sums of eight rows of both panels in sixteen registers. For each pair of inner indices two
//! registers of the right side meet eight broadcast pairs of the left, so that there are fewer loads than products.

use std::arch::x86_64::*;

use super::Block;
use super::tiles::{SIDE, Tile};

/// Whether the processor has it.
pub(super) fn there() -> bool {
    std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512bf16")
}

/// Rows whose sums are in registers.
const ROWS: usize = 8;

/// Sums a block.
pub(super) fn sum(block: Block) {
    for (i, left) in block.lefts.into_iter().enumerate() {
        for part in 0..SIDE / ROWS {
            let first = i * SIDE + part * ROWS;
            let place = |(at, row): (*const f32, usize)| (at.wrapping_add(first * row), row);
            let (start, out) = (place(block.start), place((block.out.0.cast_const(), block.out.1)));
            #[allow(unsafe_code)]
            // SAFETY: `Unit::detect` has seen the instructions, and the block's pointers are those of such rows.
            unsafe {
                sum_rows(left, part, block.rights, start, (out.0.cast_mut(), out.1));
            }
        }
    }
}

/// Sums of some rows of a tile, those of its first or its second half.
///
/// # Safety
/// `start` and `out` point to [`ROWS`] rows of two tiles' width, to read and to write.
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn sum_rows(
    left: &[Tile],
    part: usize,
    rights: [&[Tile]; 2],
    start: (*const f32, usize),
    out: (*mut f32, usize),
) {
    // SAFETY: of the pointers by the contract; a line of a tile is 64 bytes.
    unsafe {
        let load = |line: &[u32; SIDE]| -> __m512bh { std::mem::transmute(_mm512_loadu_si512(line.as_ptr().cast())) };
        let mut sums: [[__m512; 2]; ROWS] =
            std::array::from_fn(|r| std::array::from_fn(|j| _mm512_loadu_ps(start.0.add(r * start.1 + j * SIDE))));
        for ((left, right), right2) in left.iter().zip(rights[0]).zip(rights[1]) {
            let rows: &[[u32; SIDE]; ROWS] = &bytemuck::cast_ref::<_, [_; SIDE / ROWS]>(&left.0)[part];
            for pair in 0..SIDE {
                let lines = [load(&right.0[pair]), load(&right2.0[pair])];
                for (sums, row) in sums.iter_mut().zip(rows) {
                    let value: __m512bh = std::mem::transmute(_mm512_set1_epi32(row[pair].cast_signed()));
                    sums[0] = _mm512_dpbf16_ps(sums[0], value, lines[0]);
                    sums[1] = _mm512_dpbf16_ps(sums[1], value, lines[1]);
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            _mm512_storeu_ps(out.0.add(r * out.1), sums[0]);
            _mm512_storeu_ps(out.0.add(r * out.1 + SIDE), sums[1]);
        }
    }
}
