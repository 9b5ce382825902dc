//! Blocks by AVX-512 BF16: the sums of a tile in sixteen registers, and for each pair of inner indices one register of the
//! right side against sixteen broadcast pairs of the left.

use std::arch::x86_64::*;

use super::Block;
use super::tiles::{SIDE, Tile};

/// Whether the processor has it.
pub(super) fn there() -> bool {
    std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512bf16")
}

/// Sums a block.
pub(super) fn sum(block: Block) {
    for (i, left) in block.lefts.into_iter().enumerate() {
        for (j, right) in block.rights.into_iter().enumerate() {
            let place = |(at, row): (*const f32, usize)| (at.wrapping_add(i * SIDE * row + j * SIDE), row);
            let (start, out) = (place(block.start), place((block.out.0.cast_const(), block.out.1)));
            #[allow(unsafe_code)]
            // SAFETY: `Unit::detect` has seen the instructions, and the block's pointers are those of 16 such rows.
            unsafe {
                sum_tile(left, right, start, (out.0.cast_mut(), out.1));
            }
        }
    }
}

/// One tile of sums.
///
/// # Safety
/// `start` and `out` point to 16 rows of 16 values, to read and to write.
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn sum_tile(left: &[Tile], right: &[Tile], start: (*const f32, usize), out: (*mut f32, usize)) {
    // SAFETY: of the pointers by the contract; a line of a tile is 64 bytes.
    unsafe {
        let mut sums: [__m512; SIDE] = std::array::from_fn(|r| _mm512_loadu_ps(start.0.add(r * start.1)));
        for (left, right) in left.iter().zip(right) {
            for (pair, line) in right.0.iter().enumerate() {
                let line: __m512bh = std::mem::transmute(_mm512_loadu_si512(line.as_ptr().cast()));
                for (sum, left) in sums.iter_mut().zip(&left.0) {
                    let value: __m512bh = std::mem::transmute(_mm512_set1_epi32(left[pair].cast_signed()));
                    *sum = _mm512_dpbf16_ps(*sum, value, line);
                }
            }
        }
        for (r, sum) in sums.into_iter().enumerate() {
            _mm512_storeu_ps(out.0.add(r * out.1), sum);
        }
    }
}
