//! The blocks of GGUF files, one at a time: what bits stand where. A block is taken apart into integers and the numbers
//! that they are scaled by, which are the same few for every type.
//!
//! Formats: <https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>.

/// A type of quantized blocks, by its name in GGUF files.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockType {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

/// How the values of a type are made: `scale * (q - offset)`, or `scale * q + minimum`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    /// Bits of `q` that lie in words of their own: 2, 4 or 8.
    pub(super) low: usize,
    /// Bits above them, which lie in other words: 0, 1 or 2.
    pub(super) high: usize,
    /// Values that share a scale: 16 or 32.
    pub(super) group: usize,
    /// Whether a group's scale is a small integer times one number for [`LARGE`] values.
    pub(super) nested: bool,
    /// Whether there is a minimum, beside and like the scale.
    pub(super) minimum: bool,
    /// What is taken from `q` where there is no minimum.
    pub(super) offset: u8,
}

/// Values of a block whose scales are nested.
pub(super) const LARGE: usize = 256;
/// Values of the others.
pub(super) const SMALL: usize = 32;

impl BlockType {
    /// Values of a block.
    pub fn values(self) -> usize {
        if self.grid().nested { LARGE } else { SMALL }
    }

    /// Bytes of a block in a file.
    pub fn bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// How its values are made.
    pub(super) fn grid(self) -> Grid {
        let small = Grid { low: 4, high: 0, group: SMALL, nested: false, minimum: false, offset: 0 };
        let large = Grid { nested: true, ..small };
        match self {
            Self::Q4_0 => Grid { offset: 8, ..small },
            Self::Q4_1 => Grid { minimum: true, ..small },
            Self::Q5_0 => Grid { high: 1, offset: 16, ..small },
            Self::Q5_1 => Grid { high: 1, minimum: true, ..small },
            Self::Q8_0 => Grid { low: 8, offset: 128, ..small },
            Self::Q2K => Grid { low: 2, group: 16, minimum: true, ..large },
            Self::Q3K => Grid { low: 2, high: 1, group: 16, offset: 4, ..large },
            Self::Q4K => Grid { minimum: true, ..large },
            Self::Q5K => Grid { high: 1, minimum: true, ..large },
            Self::Q6K => Grid { high: 2, group: 16, offset: 32, ..large },
        }
    }
}

/// A block taken apart. Beyond what its type has, the rest is left as it was.
#[derive(Debug)]
pub(super) struct Block {
    /// The integers, in the order of the values.
    pub(super) q: [u8; LARGE],
    /// Bits of the fp16 scale, and of the minimum.
    pub(super) scale: u16,
    pub(super) minimum: u16,
    /// Of each group, where scales are nested.
    pub(super) codes: [i8; LARGE / 16],
    pub(super) minimum_codes: [i8; LARGE / 16],
}

impl Block {
    pub(super) const EMPTY: Self =
        Self { q: [0; LARGE], scale: 0, minimum: 0, codes: [0; LARGE / 16], minimum_codes: [0; LARGE / 16] };

    /// Takes the bytes of a block of a type apart.
    pub(super) fn take(&mut self, kind: BlockType, bytes: &[u8]) {
        match kind {
            BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Q5_0 | BlockType::Q5_1 => {
                self.take_small(kind.grid(), bytes)
            }
            BlockType::Q8_0 => {
                self.scale = half_at(bytes, 0);
                self.q.iter_mut().zip(&bytes[2..34]).for_each(|(q, byte)| *q = byte ^ 0x80);
            }
            BlockType::Q2K => self.take_q2(bytes),
            BlockType::Q3K => self.take_q3(bytes),
            BlockType::Q4K => self.take_q4_q5(&bytes[..16], None, &bytes[16..]),
            BlockType::Q5K => self.take_q4_q5(&bytes[..16], Some(&bytes[16..48]), &bytes[48..]),
            BlockType::Q6K => self.take_q6(bytes),
        }
    }

    /// Scale, minimum, upper bits, and bytes with value `i` below and value `i + 16` above.
    fn take_small(&mut self, grid: Grid, bytes: &[u8]) {
        self.scale = half_at(bytes, 0);
        let mut at = 2;
        if grid.minimum {
            self.minimum = half_at(bytes, at);
            at += 2;
        }
        let mut upper = 0;
        if grid.high == 1 {
            upper = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            at += 4;
        }
        let bit = |i: usize| ((upper >> i & 1) << 4) as u8;
        for (i, byte) in bytes[at..at + 16].iter().enumerate() {
            self.q[i] = byte & 15 | bit(i);
            self.q[i + 16] = byte >> 4 | bit(i + 16);
        }
    }

    /// Halves of 128 values, four to a byte.
    fn take_q2(&mut self, bytes: &[u8]) {
        for (group, code) in bytes[..16].iter().enumerate() {
            (self.codes[group], self.minimum_codes[group]) = ((code & 15).cast_signed(), (code >> 4).cast_signed());
        }
        (self.scale, self.minimum) = (half_at(bytes, 80), half_at(bytes, 82));
        self.q.iter_mut().enumerate().for_each(|(i, q)| *q = quarter(&bytes[16..80], i));
    }

    /// The same, with a third bit for each value.
    fn take_q3(&mut self, bytes: &[u8]) {
        let scales = &bytes[96..108];
        for (group, code) in self.codes.iter_mut().enumerate() {
            let low = if group < 8 { scales[group] & 15 } else { scales[group - 8] >> 4 };
            let high = scales[8 + group % 4] >> (2 * (group / 4)) & 3;
            *code = (low | high << 4).cast_signed() - 32;
        }
        self.scale = half_at(bytes, 108);
        let third = |i: usize| (bytes[i % 32] >> (i / 32) & 1) << 2;
        self.q.iter_mut().enumerate().for_each(|(i, q)| *q = quarter(&bytes[32..96], i) | third(i));
    }

    /// Scale, minimum and twelve bytes of codes; upper bits; then 64 values in 32 bytes, the later ones above.
    fn take_q4_q5(&mut self, head: &[u8], upper: Option<&[u8]>, bytes: &[u8]) {
        (self.scale, self.minimum) = (half_at(head, 0), half_at(head, 2));
        let codes = &head[4..16];
        for group in 0..8 {
            let (code, minimum) = match group {
                0..4 => (codes[group] & 63, codes[group + 4] & 63),
                _ => {
                    (codes[group + 4] & 15 | codes[group - 4] >> 6 << 4, codes[group + 4] >> 4 | codes[group] >> 6 << 4)
                }
            };
            (self.codes[group], self.minimum_codes[group]) = (code.cast_signed(), minimum.cast_signed());
        }
        for (i, q) in self.q.iter_mut().enumerate() {
            let (pair, within) = (i / 64, i % 64);
            *q = bytes[pair * 32 + within % 32] >> (within / 32 * 4) & 15;
            if let Some(upper) = upper {
                *q |= (upper[i % 32] >> (i / 32) & 1) << 4;
            }
        }
    }

    /// Halves of 128 values: four bits each, then the two above them.
    fn take_q6(&mut self, bytes: &[u8]) {
        self.codes.iter_mut().zip(&bytes[192..208]).for_each(|(code, byte)| *code = byte.cast_signed());
        self.scale = half_at(bytes, 208);
        for (i, q) in self.q.iter_mut().enumerate() {
            let (half, within) = (i / 128, i % 128);
            let low = bytes[half * 64 + within % 64] >> (within / 64 * 4) & 15;
            let high = bytes[128 + half * 32 + within % 32] >> (within / 32 * 2) & 3;
            *q = low | high << 4;
        }
    }
}

/// Two bits of value `i` of a block, four of which lie in each byte, 32 values apart.
fn quarter(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3
}

fn half_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}
