//! A matrix `(N, K)` of quantized blocks, in panels of [`PANEL`] outputs as products read them: for each few inner indices
//! a word of each output, and beside them the scales. It takes what the blocks take in a file, and is widened as it is
//! multiplied: a panel at a time for many rows, in registers for one (`avx2`). Either way a weight is one rounding of
//! `q * scale + minimum`, the value that every reader of such files computes, so that all products of it agree.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod format;

use half::f16;

pub use format::BlockType;
use format::{Block, Grid, LARGE, SMALL};

use crate::product::PANEL;

/// The blocks of a matrix. A unit is [`SMALL`] inner indices of a panel.
#[derive(Debug, Clone)]
pub(super) struct Blocks {
    kind: BlockType,
    k: usize,
    /// Lower bits of the integers: of each unit `low` times [`PANEL`] words, the first index in the lowest bits.
    low: Vec<u32>,
    /// Upper bits: of each unit `high` times [`PANEL`] words.
    high: Vec<u32>,
    /// Bits of fp16 scales: [`PANEL`] for each unit, or for [`LARGE`] inner indices.
    scales: Vec<u16>,
    /// The same of minima.
    minima: Vec<u16>,
    /// What nested scales and minima are multiplied by: [`PANEL`] for each group.
    codes: Vec<i8>,
    minimum_codes: Vec<i8>,
}

/// What of the vectors belongs to a stretch of inner indices: how many to a panel's whole width.
#[derive(Debug, Clone, Copy)]
struct Lengths {
    low: usize,
    high: usize,
    scales: usize,
    minima: usize,
    codes: usize,
    minimum_codes: usize,
}

impl Lengths {
    /// Of a panel of `k` inner indices.
    fn of(grid: Grid, k: usize) -> Self {
        let units = k / SMALL;
        let scales = if grid.nested { k / LARGE } else { units };
        let codes = if grid.nested { k / grid.group } else { 0 };
        let if_minimum = |length| if grid.minimum { length } else { 0 };
        Self {
            low: PANEL * units * grid.low,
            high: PANEL * units * grid.high,
            scales: PANEL * scales,
            minima: PANEL * if_minimum(scales),
            codes: PANEL * codes,
            minimum_codes: PANEL * if_minimum(codes),
        }
    }

    fn bytes(self) -> usize {
        4 * (self.low + self.high) + 2 * (self.scales + self.minima) + self.codes + self.minimum_codes
    }
}

impl Blocks {
    /// Room for `(N, K)`. Rows are whole blocks.
    pub(super) fn zeros(kind: BlockType, n: usize, k: usize) -> Self {
        assert!(k.is_multiple_of(kind.values()), "rows of {k} values are no whole blocks of {}", kind.values());
        let (panels, of) = (n.div_ceil(PANEL), Lengths::of(kind.grid(), k));
        Self {
            kind,
            k,
            low: vec![0; panels * of.low],
            high: vec![0; panels * of.high],
            scales: vec![0; panels * of.scales],
            minima: vec![0; panels * of.minima],
            codes: vec![0; panels * of.codes],
            minimum_codes: vec![0; panels * of.minimum_codes],
        }
    }

    /// Bytes that `(N, K)` take.
    pub(super) fn bytes(kind: BlockType, n: usize, k: usize) -> usize {
        n.div_ceil(PANEL) * Lengths::of(kind.grid(), k).bytes()
    }

    /// Puts whole rows where they belong, from `row` on, as the bytes of their blocks.
    pub(super) fn put(&mut self, row: usize, bytes: &[u8]) {
        let (values, size) = (self.kind.values(), self.kind.bytes());
        let mut block = Block::EMPTY;
        for (row, bytes) in (row..).zip(bytes.chunks_exact(self.k / values * size)) {
            for (first, bytes) in (0..).step_by(values).zip(bytes.chunks_exact(size)) {
                block.take(self.kind, bytes);
                self.put_block(row, first, &block);
            }
        }
    }

    /// A block of a row, whose values begin with inner index `first`.
    fn put_block(&mut self, row: usize, first: usize, block: &Block) {
        let (grid, values) = (self.kind.grid(), self.kind.values());
        let (panel, column) = (row / PANEL, row % PANEL);
        let place = |length: usize, at: usize| panel * length + at * PANEL + column;
        let of = Lengths::of(grid, self.k);
        let low = place(of.low, first / SMALL * grid.low);
        pack(
            &block.q[..values],
            32 / grid.low,
            |q| u32::from(q) & ((1 << grid.low) - 1),
            grid.low,
            |word, bits| {
                self.low[low + word * PANEL] = bits;
            },
        );
        if grid.high > 0 {
            let high = place(of.high, first / SMALL * grid.high);
            pack(
                &block.q[..values],
                32 / grid.high,
                |q| u32::from(q) >> grid.low,
                grid.high,
                |word, bits| {
                    self.high[high + word * PANEL] = bits;
                },
            );
        }
        let at = place(of.scales, first / values);
        self.scales[at] = block.scale;
        if grid.minimum {
            self.minima[at] = block.minimum;
        }
        if grid.nested {
            let groups = values / grid.group;
            let at = place(of.codes, first / grid.group);
            for group in 0..groups {
                self.codes[at + group * PANEL] = block.codes[group];
                if grid.minimum {
                    self.minimum_codes[at + group * PANEL] = block.minimum_codes[group];
                }
            }
        }
    }

    /// Scale and minimum of the group of inner index `k` for column `column` of a panel.
    fn scale(&self, panel: usize, k: usize, column: usize) -> (f32, f32) {
        let (grid, of) = (self.kind.grid(), Lengths::of(self.kind.grid(), self.k));
        let at = panel * of.scales + k / self.kind.values() * PANEL + column;
        let code_at = panel * of.codes + k / grid.group * PANEL + column;
        let number = |halves: &[u16], codes: &[i8]| {
            let number = f16::from_bits(halves[at]).to_f32();
            if grid.nested { number * f32::from(codes[code_at]) } else { number }
        };
        let scale = number(&self.scales, &self.codes);
        if !grid.minimum {
            return (scale, -(f32::from(grid.offset) * scale));
        }
        let minimum = number(&self.minima, &self.minimum_codes);
        (scale, if grid.nested { -minimum } else { minimum })
    }

    /// The integer of inner index `k` for column `column` of a panel.
    fn integer(&self, panel: usize, k: usize, column: usize) -> u32 {
        let (grid, of) = (self.kind.grid(), Lengths::of(self.kind.grid(), self.k));
        let bits = |words: &[u32], length: usize, bits: usize| {
            let in_word = 32 / bits;
            words[panel * length + k / in_word * PANEL + column] >> (k % in_word * bits) & ((1 << bits) - 1)
        };
        let low = bits(&self.low, of.low, grid.low);
        if grid.high == 0 { low } else { low | bits(&self.high, of.high, grid.high) << grid.low }
    }

    /// Writes the values of a row from inner index `first` on to `out`.
    pub(super) fn values(&self, row: usize, first: usize, out: &mut [f32]) {
        let (panel, column, group) = (row / PANEL, row % PANEL, self.kind.grid().group);
        let (mut scale, mut known) = ((0.0, 0.0), usize::MAX);
        for (k, to) in (first..).zip(out) {
            if k / group != known {
                (scale, known) = (self.scale(panel, k, column), k / group);
            }
            *to = (self.integer(panel, k, column) as f32).mul_add(scale.0, scale.1);
        }
    }

    /// Writes panel `p` to `out (K, PANEL)`.
    pub(super) fn widen(&self, p: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.k * PANEL);
        #[cfg(target_arch = "x86_64")]
        if avx2::there() {
            return avx2::widen(self, p, out);
        }
        self.widen_anywhere(p, out);
    }

    fn widen_anywhere(&self, p: usize, out: &mut [f32]) {
        let group = self.kind.grid().group;
        for (first, rows) in (0..).step_by(group).zip(out.chunks_exact_mut(group * PANEL)) {
            let scales: [(f32, f32); PANEL] = std::array::from_fn(|column| self.scale(p, first, column));
            for (k, row) in (first..).zip(rows.chunks_exact_mut(PANEL)) {
                for (column, (to, (scale, minimum))) in row.iter_mut().zip(scales).enumerate() {
                    *to = (self.integer(p, k, column) as f32).mul_add(scale, minimum);
                }
            }
        }
    }

    /// The chain of multiply-adds of `x` with the inner indices of panel `p` from `first` on, for each output, without
    /// widening the panel first; `None` where the processor cannot.
    pub(super) fn dot(&self, p: usize, first: usize, x: &[f32]) -> Option<[f32; PANEL]> {
        #[cfg(target_arch = "x86_64")]
        if avx2::there() {
            return Some(avx2::dot(self, p, first, x));
        }
        let _ = (p, first, x);
        None
    }
}

/// Packs integers, `in_word` to a word, the first in the lowest bits.
fn pack(q: &[u8], in_word: usize, part: impl Fn(u8) -> u32, bits: usize, mut put: impl FnMut(usize, u32)) {
    for (word, q) in q.chunks_exact(in_word).enumerate() {
        put(word, q.iter().rev().fold(0, |packed, q| packed << bits | part(*q)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::{Panels, Stored};
    use crate::product::{Epilogue, Left, Out};
    use crate::team::Team;
    use reckon_datasets::Counted;

    /// Every type, with the places of its fp16 numbers in a block.
    const TYPES: [(BlockType, &[usize]); 10] = [
        (BlockType::Q4_0, &[0]),
        (BlockType::Q4_1, &[0, 2]),
        (BlockType::Q5_0, &[0]),
        (BlockType::Q5_1, &[0, 2]),
        (BlockType::Q8_0, &[0]),
        (BlockType::Q2K, &[80, 82]),
        (BlockType::Q3K, &[108]),
        (BlockType::Q4K, &[0, 2]),
        (BlockType::Q5K, &[0, 2]),
        (BlockType::Q6K, &[208]),
    ];

    /// Rows of `k` values in blocks of random bits and scales.
    fn random_rows(kind: BlockType, numbers: &[usize], n: usize, k: usize) -> Vec<u8> {
        let mut random = Counted::new(&[n as u64, k as u64]);
        let mut bytes: Vec<u8> = (0..n * k / kind.values() * kind.bytes()).map(|_| random.below(256) as u8).collect();
        for block in bytes.chunks_exact_mut(kind.bytes()) {
            for &at in numbers {
                let number = f16::from_f64(0.02 * random.normal());
                block[at..at + 2].copy_from_slice(&number.to_le_bytes());
            }
        }
        bytes
    }

    /// The blocks, and the same values in fp32, each read by itself.
    fn both(kind: BlockType, bytes: &[u8], n: usize, k: usize) -> [Panels; 2] {
        let [mut blocks, mut whole] = [Stored::Blocks(kind), Stored::F32].map(|stored| Panels::zeros(stored, n, k));
        let row = k / kind.values() * kind.bytes();
        // Out of order, and several rows at a time.
        let cut = n / 3;
        blocks.put_blocks(cut, &bytes[cut * row..]);
        blocks.put_blocks(0, &bytes[..cut * row]);
        let mut value = [0f32];
        for at in 0..n * k {
            blocks.values(at..at + 1, &mut value);
            whole.put(at, &value);
        }
        [blocks, whole]
    }

    #[test]
    fn products_of_blocks_have_the_bits_of_products_of_their_values() {
        for (kind, numbers) in TYPES {
            // Inner dimensions of one chain and of several; of whole units alone, where the type allows it.
            for (n, units) in [(50, 1), (97, 5), (48, 41)] {
                let k = units * if kind.values() == SMALL { SMALL } else { LARGE };
                let bytes = random_rows(kind, numbers, n, k);
                let matrices = both(kind, &bytes, n, k);
                let mut random = Counted::new(&[9]);
                let mut draw = |count: usize| (0..count).map(|_| random.normal() as f32).collect::<Vec<f32>>();
                let (x, dy, bias) = (draw(7 * k), draw(7 * n), draw(n));
                let run = |team: &Team, matrix: &Panels, rows: usize| {
                    let (mut y, mut dx) = (vec![f32::NAN; rows * n], vec![f32::NAN; rows * k]);
                    let out = Out::new(&mut y, n, Epilogue::Bias(&bias));
                    matrix.forward(team, Left { values: &x[..rows * k], row: k, inner: 1 }, rows, out);
                    let left = Left { values: &dy[..rows * n], row: n, inner: 1 };
                    matrix.backward_input(team, left, rows, &mut dx, Epilogue::None);
                    (y, dx)
                };
                let whole = run(&Team::alone(), &matrices[1], 7);
                Team::with(3, |team| assert_eq!(run(team, &matrices[0], 7), whole, "{kind:?} {n} x {k}"));
                let (y, dx) = run(&Team::alone(), &matrices[0], 1);
                assert_eq!((&y[..], &dx[..]), (&whole.0[..n], &whole.1[..k]), "{kind:?} {n} x {k}: a row alone");
            }
        }
    }

    #[test]
    fn every_processor_widens_to_the_same_values() {
        for (kind, numbers) in TYPES {
            let (n, k) = (PANEL, 2 * LARGE);
            let mut blocks = Blocks::zeros(kind, n, k);
            blocks.put(0, &random_rows(kind, numbers, n, k));
            let [mut here, mut anywhere] = [vec![f32::NAN; n * k], vec![f32::NAN; n * k]];
            blocks.widen(0, &mut here);
            blocks.widen_anywhere(0, &mut anywhere);
            assert_eq!(here, anywhere, "{kind:?}");
            let mut row = vec![f32::NAN; k];
            blocks.values(5, 0, &mut row);
            assert_eq!(row, here.iter().skip(5).step_by(PANEL).copied().collect::<Vec<f32>>(), "{kind:?}");
        }
    }

    #[test]
    fn panels_take_the_bytes_of_the_blocks_and_little_more() {
        for (kind, _) in TYPES {
            let (n, k) = (3 * PANEL, LARGE);
            let (held, file) = (Blocks::bytes(kind, n, k), n * k / kind.values() * kind.bytes());
            assert!(held >= file && held as f64 <= 1.2 * file as f64, "{kind:?}: {held} bytes for {file}");
            assert!(kind == BlockType::Q2K || held as f64 <= 1.05 * file as f64, "{kind:?}: {held} for {file}");
        }
    }
}
