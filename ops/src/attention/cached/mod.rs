//! Attention of one new token over its cached keys and values, which lie in blocks of [`LANES`] positions.
//!
//! A layer's block holds the keys, transposed `(key_value, D, LANES)` so that a register holds one coordinate of all
//! its positions, then the values `(LANES, key_value, P)` with heads padded to `P`, a multiple of [`LANES`].

pub mod device;

use super::{Heads, Scratch, exponentiate, with_scratch};
use crate::team::Team;
use crate::vector::{ARCH, LANES, grown, prefetch, vectorised};

/// Values a head of values in the cache: rounded up to whole registers.
fn padded(heads: Heads) -> usize {
    heads.value.next_multiple_of(LANES)
}

/// Values a layer of a block.
pub fn block_len(heads: Heads) -> usize {
    LANES * heads.key_value * (heads.size + padded(heads))
}

/// Writes the keys and values of one row of `qkv` into slot `position % LANES` of its block.
pub fn put(heads: Heads, qkv: &[f32], position: usize, block: &mut [f32]) {
    let (Heads { size, value, .. }, slot) = (heads, position % LANES);
    let (keys, values) = block.split_at_mut(LANES * heads.key_value * size);
    // Heads of keys lie end to end in both, so one loop over all their coordinates serves.
    let key = &qkv[heads.key(0)..heads.value(0)];
    key.iter().zip(keys.chunks_exact_mut(LANES)).for_each(|(&value, column)| column[slot] = value);
    let row = padded(heads) * heads.key_value;
    let out = values[slot * row..][..row].chunks_exact_mut(padded(heads));
    for (from, out) in qkv[heads.value(0)..heads.row()].chunks_exact(value).zip(out) {
        out[..value].copy_from_slice(from);
    }
}

/// One layer of a row's blocks, by their place in the sequence.
type Blocks<'a, 'b> = &'b (dyn Fn(usize) -> &'a [f32] + Sync);

/// The attention of rows `qkv (R, row)` over their cached positions, the first `lengths[r]` in the blocks that
/// `block(r, b)` has, the row's own position last -> `o (R, query * D)`.
pub fn forward<'a>(
    team: &Team,
    heads: Heads,
    qkv: &[f32],
    lengths: &[usize],
    block: &(dyn Fn(usize, usize) -> &'a [f32] + Sync),
    o: &mut [f32],
) {
    let rows = qkv.chunks_exact(heads.row()).zip(o.chunks_exact_mut(heads.output())).zip(lengths);
    let piece = team.piece(lengths.len());
    let mut rows = rows.enumerate().peekable();
    let pieces = std::iter::from_fn(|| rows.peek().is_some().then(|| rows.by_ref().take(piece).collect::<Vec<_>>()));
    team.each(pieces, |rows| {
        with_scratch(|scratch| {
            for (r, ((qkv, o), &n)) in rows {
                decode(heads, qkv, n, &|b| block(r, b), o, scratch);
            }
        });
    });
}

/// One row's attention over its cached blocks, which hold positions `0..n` with the row's own last -> `o (query * D)`.
fn decode<'a>(heads: Heads, qkv: &[f32], n: usize, block: Blocks<'a, '_>, o: &mut [f32], scratch: &mut Scratch) {
    let width = n.next_multiple_of(LANES);
    let scores = grown(&mut scratch.scores, heads.query * width);
    let sums = grown(&mut scratch.sums, heads.query);
    let output = grown(&mut scratch.output, heads.key_value * padded(heads));
    ARCH.dispatch(Scores { heads, qkv, block, scores, width });
    vectorised(
        #[inline(always)]
        || {
            for (scores, sum) in scores.chunks_exact_mut(width).zip(sums.iter_mut()) {
                *sum = exponentiate(scores, n, heads.scale()).1;
            }
        },
    );
    for member in 0..heads.group() {
        ARCH.dispatch(Outputs { heads, n, member, block, scores, width, output });
        for (kv, output) in output.chunks_exact(padded(heads)).enumerate() {
            let head = kv * heads.group() + member;
            let scale = 1.0 / sums[head];
            o[head * heads.value..][..heads.value].iter_mut().zip(output).for_each(|(o, sum)| *o = sum * scale);
        }
    }
}

/// Blocks whose chains of multiply-adds run side by side: one alone would wait for each of its own results.
const SIDE_BY_SIDE: usize = 4;

/// `scores (query, width) = q k` for every cached position.
struct Scores<'a, 'b> {
    heads: Heads,
    qkv: &'b [f32],
    block: Blocks<'a, 'b>,
    scores: &'b mut [f32],
    width: usize,
}

impl pulp::WithSimd for Scores<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, simd: S) {
        let (count, mut first) = (self.width / LANES, 0);
        while first < count {
            first += match count - first {
                SIDE_BY_SIDE.. => self.by_lanes::<S, SIDE_BY_SIDE>(simd, first),
                2.. => self.by_lanes::<S, 2>(simd, first),
                _ => self.by_lanes::<S, 1>(simd, first),
            };
        }
    }
}

impl Scores<'_, '_> {
    /// `N` blocks from `first` on; returns `N`.
    #[inline(always)]
    fn by_lanes<S: pulp::Simd, const N: usize>(&mut self, simd: S, first: usize) -> usize {
        match S::F32_LANES {
            16 => self.blocks::<S, N, 1>(simd, first),
            8 => self.blocks::<S, N, 2>(simd, first),
            4 => self.blocks::<S, N, 4>(simd, first),
            _ => self.blocks::<S, N, 16>(simd, first),
        }
        N
    }

    #[inline(always)]
    fn blocks<S: pulp::Simd, const N: usize, const V: usize>(&mut self, simd: S, first: usize) {
        let Heads { query, size, .. } = self.heads;
        let keys_len = self.heads.key_value * size * LANES;
        let blocks: [&[f32]; N] = std::array::from_fn(|b| (self.block)(first + b));
        for head in 0..query {
            // The values are read after all keys: their lines are on the way meanwhile.
            for block in blocks {
                let values = &block[keys_len..];
                let share = values.len() / query;
                prefetch(&values[head * share..][..share]);
            }
            let start = head / self.heads.group() * size * LANES;
            let keys = blocks.map(|block| S::as_simd_f32s(&block[start..][..size * LANES]).0);
            let mut sums = [[simd.splat_f32s(0.0); V]; N];
            for (d, &q) in self.qkv[head * size..][..size].iter().enumerate() {
                let q = simd.splat_f32s(q);
                for b in 0..N {
                    for v in 0..V {
                        sums[b][v] = simd.mul_add_f32s(q, keys[b][d * V + v], sums[b][v]);
                    }
                }
            }
            let out = &mut self.scores[head * self.width + first * LANES..][..N * LANES];
            S::as_mut_simd_f32s(out).0.copy_from_slice(sums.as_flattened());
        }
    }
}

/// `output (key_value, P) = sum_j p_j v_j` over the cached positions in order, for one query head a key head.
struct Outputs<'a, 'b> {
    heads: Heads,
    n: usize,
    /// Which query head of each group.
    member: usize,
    block: Blocks<'a, 'b>,
    scores: &'b [f32],
    width: usize,
    output: &'b mut [f32],
}

impl pulp::WithSimd for Outputs<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, simd: S) {
        self.output.fill(0.0);
        for b in 0..self.width / LANES {
            let values = &(self.block)(b)[self.heads.key_value * self.heads.size * LANES..];
            match S::F32_LANES {
                16 => self.chunks::<S, 1>(simd, b, values),
                8 => self.chunks::<S, 2>(simd, b, values),
                4 => self.chunks::<S, 4>(simd, b, values),
                _ => self.chunks::<S, 16>(simd, b, values),
            }
        }
    }
}

impl Outputs<'_, '_> {
    /// All chunks of [`LANES`] values of a block's rows, as many side by side as there are.
    #[inline(always)]
    fn chunks<S: pulp::Simd, const V: usize>(&mut self, simd: S, b: usize, values: &[f32]) {
        let (count, mut first) = (self.output.len() / LANES, 0);
        while first < count {
            first += match count - first {
                8.. => self.some_chunks::<S, V, 8>(simd, b, values, first),
                4.. => self.some_chunks::<S, V, 4>(simd, b, values, first),
                2.. => self.some_chunks::<S, V, 2>(simd, b, values, first),
                _ => self.some_chunks::<S, V, 1>(simd, b, values, first),
            };
        }
    }

    /// `C` chunks from `first` on; returns `C`.
    #[inline(always)]
    fn some_chunks<S: pulp::Simd, const V: usize, const C: usize>(
        &mut self,
        simd: S,
        b: usize,
        values: &[f32],
        first: usize,
    ) -> usize {
        let (row, chunks_a_head) = (self.output.len(), padded(self.heads) / LANES);
        let live = (self.n - b * LANES).min(LANES);
        let weights: [&[f32]; C] = std::array::from_fn(|c| {
            let head = (first + c) / chunks_a_head * self.heads.group() + self.member;
            &self.scores[head * self.width + b * LANES..][..live]
        });
        let out = S::as_mut_simd_f32s(&mut self.output[first * LANES..][..C * LANES]).0;
        let mut sums = [[simd.splat_f32s(0.0); V]; C];
        sums.as_flattened_mut().copy_from_slice(out);
        for (j, values) in values.chunks_exact(row).take(live).enumerate() {
            let values = S::as_simd_f32s(&values[first * LANES..][..C * LANES]).0;
            for c in 0..C {
                let weight = simd.splat_f32s(weights[c][j]);
                for v in 0..V {
                    sums[c][v] = simd.mul_add_f32s(weight, values[c * V + v], sums[c][v]);
                }
            }
        }
        out.copy_from_slice(sums.as_flattened());
        C
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{Segment, packed};
    use reckon_datasets::Counted;

    #[test]
    fn a_row_over_the_cache_has_the_bits_of_the_packed_one_however_long_the_sequence() {
        let (heads, team, t) = (Heads::alike(4, 2, 8), Team::alone(), 1100);
        let mut random = Counted::new(&[1]);
        let qkv: Vec<f32> = (0..t * heads.row()).map(|_| random.normal() as f32).collect();
        let (mut expected, mut lse) = (vec![0f32; t * heads.output()], vec![0f32; t * 4]);
        packed::forward(&team, heads, &qkv, &[Segment::alone(0..t)], &mut expected, &mut lse);
        let mut blocks = vec![vec![0f32; block_len(heads)]; t.div_ceil(LANES)];
        let positions = qkv.chunks_exact(heads.row()).zip(expected.chunks_exact(heads.output()));
        for (position, (qkv, expected)) in positions.enumerate() {
            put(heads, qkv, position, &mut blocks[position / LANES]);
            if !(40..1000).contains(&position) {
                let mut o = vec![f32::NAN; heads.output()];
                forward(&team, heads, qkv, &[position + 1], &|_, b| &blocks[b], &mut o);
                assert_eq!(o, expected, "position {position}");
            }
        }
    }
}
