//! How the operands of a bf16 product lie: in tiles of 16 by 32 values, each of 16 lines of 16 pairs along the inner
//! dimension. A tile of the left side has a line for each row, a tile of the right side has a line for each pair of inner
//! indices, so one is the other transposed. What lies beyond the matrix is zero.

use std::ops::Range;

use crate::team::Team;
use crate::vector::vectorised;

/// Rows (of the left side) or columns (of the right side) of a tile, and pairs along its inner dimension.
pub(crate) const SIDE: usize = 16;
/// Inner indices of a tile.
pub(crate) const DEPTH: usize = 2 * SIDE;

/// 16 lines of 16 pairs; the lower half of a pair is the value of the even inner index.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Tile(pub(crate) [[u32; SIDE]; SIDE]);

/// A side of a product: `outer` rows of the left matrix, or columns of the right one, with `inner` values each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Operand {
    /// Tile `(o, i)` is the one at `o * inner tiles + i`. An operand that was larger before has more of them than count.
    tiles: Vec<Tile>,
    pub(crate) outer: usize,
    pub(crate) inner: usize,
}

/// A matrix in fp32: `width` of every `row` values count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) row: usize,
    pub(crate) rows: usize,
    pub(crate) width: usize,
}

impl<'a> Matrix<'a> {
    /// All of `values`, in rows of `width`.
    pub(crate) fn whole(values: &'a [f32], width: usize) -> Self {
        Self { values, row: width, rows: values.len() / width, width }
    }
}

impl Operand {
    /// Nothing yet, to be filled.
    pub(crate) const EMPTY: Self = Self { tiles: Vec::new(), outer: 0, inner: 0 };

    fn shape(&mut self, outer: usize, inner: usize) {
        (self.outer, self.inner) = (outer, inner);
        // Never shortened: to grow again would write what is then filled anyway.
        if self.tiles.len() < self.count() {
            self.tiles.resize(self.count(), Tile([[0; SIDE]; SIDE]));
        }
    }

    /// All tiles.
    fn count(&self) -> usize {
        self.panels() * self.tiles()
    }

    /// Tiles along the outer dimension.
    fn panels(&self) -> usize {
        self.outer.div_ceil(SIDE)
    }

    /// Tiles along the inner dimension.
    pub(super) fn tiles(&self) -> usize {
        self.inner.div_ceil(DEPTH)
    }

    /// The tiles of 16 rows or columns.
    fn panel(&self, index: usize) -> &[Tile] {
        &self.tiles[index * self.tiles()..][..self.tiles()]
    }

    /// The inner tiles `tiles` of a panel and of the one behind it. Behind the last one it is itself: what is computed
    /// with it there is not looked at.
    pub(super) fn pair(&self, index: usize, tiles: &Range<usize>) -> [&[Tile]; 2] {
        let last = self.panels() - 1;
        [index, last.min(index + 1)].map(|panel| self.inner_tiles(panel, tiles))
    }

    /// The inner tiles `tiles` of a panel.
    pub(super) fn inner_tiles(&self, panel: usize, tiles: &Range<usize>) -> &[Tile] {
        &self.panel(panel)[tiles.clone()]
    }

    /// The left side: rows are its rows.
    pub(crate) fn left_of_rows(&mut self, team: &Team, matrix: Matrix) {
        self.shape(matrix.rows, matrix.width);
        self.fill(team, |panel, first| fill_of_rows(matrix, panel, first));
    }

    /// The right side: rows are its columns, as those of a weight `(N, K)` are in `x Wᵀ`.
    pub(crate) fn right_of_rows(&mut self, team: &Team, matrix: Matrix) {
        self.shape(matrix.rows, matrix.width);
        self.fill(team, |panel, first| {
            fill_of_rows(matrix, panel, first);
            panel.iter_mut().for_each(transpose);
        });
    }

    /// The left side: columns are its rows.
    pub(crate) fn left_of_columns(&mut self, team: &Team, matrix: Matrix) {
        self.shape(matrix.width, matrix.rows);
        self.fill(team, |panel, first| {
            fill_of_columns(matrix, panel, first);
            panel.iter_mut().for_each(transpose);
        });
    }

    /// The right side: columns are its columns.
    pub(crate) fn right_of_columns(&mut self, team: &Team, matrix: Matrix) {
        self.shape(matrix.width, matrix.rows);
        self.fill(team, |panel, first| fill_of_columns(matrix, panel, first));
    }

    /// Fills each panel, which begins with an outer index.
    fn fill(&mut self, team: &Team, fill: impl Fn(&mut [Tile], usize) + Sync) {
        let (tiles, count) = (self.tiles().max(1), self.count());
        let piece = team.piece(self.panels());
        let pieces = self.tiles[..count].chunks_mut(piece * tiles).zip((0..).step_by(piece * SIDE));
        team.each(pieces, |(panels, first)| {
            panels.chunks_exact_mut(tiles).zip((first..).step_by(SIDE)).for_each(|(panel, first)| fill(panel, first));
        });
    }

    /// The value `(o, i)` of a right side.
    pub(crate) fn right_value(&self, outer: usize, inner: usize) -> f32 {
        let pair = self.panel(outer / SIDE)[inner / DEPTH].0[inner % DEPTH / 2][outer % SIDE];
        f32::from_bits(if inner.is_multiple_of(2) { pair << 16 } else { pair & 0xffff_0000 })
    }
}

/// Lines of the rows from `first` on.
fn fill_of_rows(matrix: Matrix, panel: &mut [Tile], first: usize) {
    vectorised(
        #[inline(always)]
        || {
            for (tile, start) in panel.iter_mut().zip((0..).step_by(DEPTH)) {
                let width = DEPTH.min(matrix.width - start);
                for (r, line) in tile.0.iter_mut().enumerate() {
                    if first + r >= matrix.rows {
                        *line = [0; SIDE];
                        continue;
                    }
                    let values = &matrix.values[(first + r) * matrix.row + start..][..width];
                    match values.first_chunk::<DEPTH>() {
                        Some(values) => *line = pairs_of(values),
                        None => {
                            let mut whole = [0f32; DEPTH];
                            whole[..width].copy_from_slice(values);
                            *line = pairs_of(&whole);
                        }
                    }
                }
            }
        },
    );
}

/// Lines of pairs of rows, of the columns from `first` on.
fn fill_of_columns(matrix: Matrix, panel: &mut [Tile], first: usize) {
    let width = SIDE.min(matrix.width - first);
    let values = |at: usize| &matrix.values[at * matrix.row + first..];
    let part_of_row = |at: usize| {
        let mut whole = [0f32; SIDE];
        if at < matrix.rows {
            whole[..width].copy_from_slice(&values(at)[..width]);
        }
        whole
    };
    vectorised(
        #[inline(always)]
        || {
            for (line, at) in panel.iter_mut().flat_map(|tile| &mut tile.0).zip((0..).step_by(2)) {
                // A row of another width, or none, is copied by a call, which takes as long as all else.
                *line = match (width, at + 1 < matrix.rows) {
                    (SIDE, true) => pair_of(&values(at)[..SIDE], &values(at + 1)[..SIDE]),
                    _ => pair_of(&part_of_row(at), &part_of_row(at + 1)),
                };
            }
        },
    );
}

/// Of each column the values of two rows.
#[inline(always)]
fn pair_of(even: &[f32], odd: &[f32]) -> [u32; SIDE] {
    let (even, odd) = (&even[..SIDE], &odd[..SIDE]);
    std::array::from_fn(|c| half_of(even[c]) | half_of(odd[c]) << 16)
}

/// Nearest bf16, ties to even, in the lower half.
#[inline(always)]
fn half_of(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if bits & 0x7fff_ffff > 0x7f80_0000 { bits >> 16 | 0x40 } else { rounded }
}

#[inline(always)]
fn pairs_of(values: &[f32; DEPTH]) -> [u32; SIDE] {
    let mut halves = [0u16; DEPTH];
    for i in 0..DEPTH {
        halves[i] = half_of(values[i]) as u16;
    }
    bytemuck::cast(halves)
}

/// Exchanges lines and pairs.
fn transpose(tile: &mut Tile) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        #[allow(unsafe_code)]
        // SAFETY: the processor has AVX-512, and the tile is there to be read and written.
        return unsafe { transpose_avx512(tile, tile) };
    }
    for line in 1..SIDE {
        for pair in 0..line {
            let (a, b) = (tile.0[line][pair], tile.0[pair][line]);
            (tile.0[line][pair], tile.0[pair][line]) = (b, a);
        }
    }
}

/// The same, into another tile.
fn transpose_to(from: &Tile, to: &mut Tile) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        #[allow(unsafe_code)]
        // SAFETY: as above.
        return unsafe { transpose_avx512(from, to) };
    }
    *to = *from;
    transpose(to);
}

/// In four rounds of sixteen shuffles: pairs, then pairs of pairs, of neighbouring lines, then quarters of lines apart.
///
/// # Safety
/// `from` is a tile to read and `to` one to write, which may be the same.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f")]
unsafe fn transpose_avx512(from: *const Tile, to: *mut Tile) {
    use std::arch::x86_64::*;
    // SAFETY: a tile is sixteen lines of 64 bytes, all of which are read before one is written.
    let load = |i: usize| unsafe { _mm512_load_si512(from.cast::<__m512i>().add(i)) };
    let a: [__m512i; SIDE] = std::array::from_fn(load);
    let b: [__m512i; SIDE] = std::array::from_fn(|i| match i % 2 {
        0 => _mm512_unpacklo_epi32(a[i], a[i + 1]),
        _ => _mm512_unpackhi_epi32(a[i - 1], a[i]),
    });
    let c: [__m512i; SIDE] = std::array::from_fn(|i| {
        let (low, high) = (i / 4 * 4 + i % 4 / 2, i / 4 * 4 + i % 4 / 2 + 2);
        match i % 2 {
            0 => _mm512_unpacklo_epi64(b[low], b[high]),
            _ => _mm512_unpackhi_epi64(b[low], b[high]),
        }
    });
    // Line `i` of `c` holds, in its quarter `q`, column `4 q + i % 4` of lines `i / 4 * 4` and the three behind it.
    let d: [__m512i; SIDE] = std::array::from_fn(|i| {
        let (first, second) = (c[i / 8 * 8 + i % 4], c[i / 8 * 8 + i % 4 + 4]);
        match i % 8 / 4 {
            0 => _mm512_shuffle_i32x4::<0x88>(first, second),
            _ => _mm512_shuffle_i32x4::<0xdd>(first, second),
        }
    });
    for i in 0..SIDE {
        let (first, second) = (d[i / 4 % 2 * 4 + i % 4], d[8 + i / 4 % 2 * 4 + i % 4]);
        let whole = match i / 8 {
            0 => _mm512_shuffle_i32x4::<0x88>(first, second),
            _ => _mm512_shuffle_i32x4::<0xdd>(first, second),
        };
        // SAFETY: as above.
        unsafe { _mm512_store_si512(to.cast::<__m512i>().add(i), whole) };
    }
}

/// Of a right side `(N, K)` the inner tile `inner` of the outer tiles `outer`, as a right side `(K, N)` of up to
/// [`DEPTH`] columns: what the gradient of the input is multiplied with.
pub(crate) fn turned(weights: &Operand, inner: usize, outer: Range<usize>, to: &mut Operand) {
    let panels = weights.panels();
    let columns = DEPTH.min(weights.inner - inner * DEPTH);
    to.shape(columns, (weights.outer - outer.start * SIDE).min(outer.len() * SIDE));
    let (tiles, count) = (to.tiles(), to.count());
    let (first, second) = to.tiles[..count].split_at_mut(tiles);
    // Two tiles with a line for each column of the weights; without a copy, for it would take as long as all else.
    let mut rows = [Tile([[0; SIDE]; SIDE]); 2];
    for (index, first) in first.iter_mut().enumerate() {
        for (half, rows) in rows.iter_mut().enumerate() {
            match outer.start + 2 * index + half {
                panel if panel < panels => transpose_to(&weights.panel(panel)[inner], rows),
                _ => rows.0.as_flattened_mut().fill(0),
            }
        }
        let rows = rows.each_ref().map(|tile| bytemuck::cast_ref::<_, [[u16; DEPTH]; SIDE]>(&tile.0));
        vectorised(
            #[inline(always)]
            || {
                for line in 0..SIDE {
                    let of_tile = &rows[line / (SIDE / 2)][line % (SIDE / 2) * 2..];
                    let (even, odd) = (&of_tile[0], &of_tile[1]);
                    let interleave = |to: &mut [u32; SIDE], from: usize| {
                        for (c, to) in to.iter_mut().enumerate() {
                            *to = u32::from(even[from + c]) | u32::from(odd[from + c]) << 16;
                        }
                    };
                    interleave(&mut first.0[line], 0);
                    if let Some(second) = second.get_mut(index) {
                        interleave(&mut second.0[line], SIDE);
                    }
                }
            },
        );
    }
}
