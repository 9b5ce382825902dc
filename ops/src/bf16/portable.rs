//! Without a bf16 unit: both sides are widened to fp32, which is exact, and multiplied as fp32 is.

use std::cell::Cell;

use super::tiles::{DEPTH, Operand, SIDE, Tile};
use super::{BLOCK, Strip};
use crate::product::{Epilogue, Left, Out, Right, Shape, product};
use crate::vector::{grown, vectorised};

thread_local! {
    // Used again by every product of a thread.
    static LEFT: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static RIGHT: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// A strip of `C`.
pub(super) fn sum(strip: &Strip, left: &Operand, epilogue: Epilogue, out: &mut Out) {
    let Strip { rows, tiles, panels, width, place } = *strip;
    let k = tiles.len() * DEPTH;
    let (mut left_rows, mut right_rows) = (LEFT.take(), RIGHT.take());
    let wide = grown(&mut left_rows, rows.len().next_multiple_of(SIDE) * k);
    for (rows_out, panel) in wide.chunks_exact_mut(SIDE * k).zip(rows.start / SIDE..) {
        widen_left(left.inner_tiles(panel, tiles), k, rows_out);
    }
    let deep = grown(&mut right_rows, k * BLOCK);
    for (at, panel) in panels.into_iter().enumerate() {
        widen_right(panel, at * SIDE, deep);
    }
    let out = Out { matrix: out.matrix.reborrow(), epilogue }.part(place.row, place.column);
    let shape = Shape { m: rows.len(), n: width, k };
    product(shape, Left { values: wide, row: k, inner: 1 }, Right::new(deep, BLOCK), out);
    LEFT.set(left_rows);
    RIGHT.set(right_rows);
}

/// Tiles of the left side to rows `(16, K)`.
fn widen_left(tiles: &[Tile], k: usize, rows: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            for (tile, start) in tiles.iter().zip((0..).step_by(DEPTH)) {
                for (line, row) in tile.0.iter().zip(rows.chunks_exact_mut(k)) {
                    let halves: [u16; DEPTH] = bytemuck::cast(*line);
                    for (to, half) in row[start..start + DEPTH].iter_mut().zip(halves) {
                        *to = f32::from_bits(u32::from(half) << 16);
                    }
                }
            }
        },
    );
}

/// Tiles of the right side to columns from `first` on of `(K, 32)`.
fn widen_right(tiles: &[Tile], first: usize, columns: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            let lines = tiles.iter().flat_map(|tile| &tile.0);
            for (line, pair) in lines.zip(columns.chunks_exact_mut(2 * BLOCK)) {
                for (c, pair_of) in line.iter().enumerate() {
                    pair[first + c] = f32::from_bits(pair_of << 16);
                    pair[BLOCK + first + c] = f32::from_bits(pair_of & 0xffff_0000);
                }
            }
        },
    );
}
