//! The header of a GGUF file, walked once before candle reads it: whether every count, length and offset lies within the
//! file, and whether every tensor is of a type that can be read. Nothing is kept of it, so nothing is taken at a file's
//! word: what candle holds of a header that passes is at most the file's size and [`ROOM`] more.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, SeekFrom};

use anyhow::{Context, Result, bail, ensure};
use candle_core::quantized::GgmlDType;

use crate::model::files::ReadSeek;

/// The types of tensor that are read: number in the file, name, and candle's.
const READ: [(u32, &str, GgmlDType); 13] = [
    (0, "F32", GgmlDType::F32),
    (1, "F16", GgmlDType::F16),
    (2, "Q4_0", GgmlDType::Q4_0),
    (3, "Q4_1", GgmlDType::Q4_1),
    (6, "Q5_0", GgmlDType::Q5_0),
    (7, "Q5_1", GgmlDType::Q5_1),
    (8, "Q8_0", GgmlDType::Q8_0),
    (10, "Q2_K", GgmlDType::Q2K),
    (11, "Q3_K", GgmlDType::Q3K),
    (12, "Q4_K", GgmlDType::Q4K),
    (13, "Q5_K", GgmlDType::Q5K),
    (14, "Q6_K", GgmlDType::Q6K),
    (30, "BF16", GgmlDType::BF16),
];

/// Types of tensor that other programs write and candle cannot read.
const UNREAD: [(u32, &str); 21] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

/// Numbers of the types of metadata that the walk asks for by name.
const UINT32: u32 = 4;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Bytes that candle may hold of a header beyond the file's own length: a vocabulary of 300,000 tokens with its merges,
/// beside weights of no size.
const ROOM: u64 = 32 << 20;
/// What candle holds of one value of metadata, of a key, and of a tensor's description.
const VALUE: u64 = 24;
const KEY: u64 = 128;
const TENSOR: u64 = 256;
/// Longest name of a key or tensor, in bytes: the format's own limit.
const LONGEST_NAME: u64 = 65_535;
/// Where a file does not say at which multiples of bytes its tensors begin.
const ALIGNMENT: u64 = 32;

/// What a type is called.
pub(super) fn name_of(dtype: GgmlDType) -> &'static str {
    READ.iter().find(|(_, _, known)| *known == dtype).map_or("an unknown type", |(_, name, _)| name)
}

/// The number that stands for a type in a file.
pub(super) fn number_of(dtype: GgmlDType) -> Option<u32> {
    READ.iter().find(|(_, _, known)| *known == dtype).map(|(number, ..)| *number)
}

/// Walks the header of an open file and refuses one that is damaged or cannot be read. The source is left anywhere.
pub(super) fn check(source: &mut dyn ReadSeek) -> Result<()> {
    let mut walk = Walk::new(source)?;
    let (tensors, entries) = walk.begin()?;
    let mut names = HashSet::new();
    for _ in 0..entries {
        let key = walk.name()?;
        walk.value(&key).with_context(|| format!("metadata {key}"))?;
        walk.hold(KEY)?;
        ensure!(names.insert(key.clone()), "metadata {key} stands there twice");
    }
    let mut places = Vec::new();
    for _ in 0..tensors {
        let name = walk.name()?;
        places.push(walk.tensor().with_context(|| format!("tensor {name}"))?);
        walk.hold(TENSOR)?;
        ensure!(names.insert(name.clone()), "tensor {name} stands there twice");
    }
    let start = walk.at.next_multiple_of(walk.alignment);
    for (offset, bytes) in places {
        ensure!(
            offset.is_multiple_of(walk.alignment),
            "a tensor begins at {offset}, no multiple of {}",
            walk.alignment
        );
        let end = start.checked_add(offset).and_then(|from| from.checked_add(bytes));
        ensure!(
            end.is_some_and(|end| end <= walk.len),
            "a tensor of {bytes} bytes begins at {offset} of the values, beyond the end of the file: it is cut short"
        );
    }
    Ok(())
}

/// What architecture an open file is of, where it says so. No more is read than what stands before it.
pub(super) fn architecture(source: &mut dyn ReadSeek) -> Result<Option<String>> {
    let mut walk = Walk::new(source)?;
    let (_, entries) = walk.begin()?;
    for _ in 0..entries {
        let key = walk.name()?;
        if key == "general.architecture" {
            ensure!(walk.number()? == STRING, "metadata {key} is not a text");
            return walk.name().map(Some);
        }
        walk.value(&key)?;
    }
    Ok(None)
}

/// A header on the way through it.
struct Walk<'a> {
    source: BufReader<&'a mut dyn ReadSeek>,
    /// Bytes that are behind.
    at: u64,
    /// Bytes of the file.
    len: u64,
    /// Bytes that candle will hold of what is behind.
    held: u64,
    /// Tensors begin at multiples of so many bytes.
    alignment: u64,
}

impl<'a> Walk<'a> {
    fn new(source: &'a mut dyn ReadSeek) -> Result<Self> {
        let len = source.seek(SeekFrom::End(0))?;
        source.seek(SeekFrom::Start(0))?;
        Ok(Self { source: BufReader::new(source), at: 0, len, held: 0, alignment: ALIGNMENT })
    }

    /// The numbers of tensors and of entries of metadata.
    fn begin(&mut self) -> Result<(u64, u64)> {
        let known = self.source.fill_buf()?.starts_with(b"GGUF");
        ensure!(known, "it is no GGUF file: it does not begin with the letters GGUF");
        self.skip(4)?;
        let version = self.number()?;
        ensure!(matches!(version, 2 | 3), "it is of version {version}: versions 2 and 3 are read");
        let (tensors, entries) = (self.long()?, self.long()?);
        // The shortest entry has a name of no letters, a type and a value of one byte; the shortest tensor no dimensions.
        let least = entries.saturating_mul(13).saturating_add(tensors.saturating_mul(24));
        ensure!(
            least <= self.len - self.at,
            "it announces {tensors} tensors and {entries} entries of metadata, for which it is too short"
        );
        Ok((tensors, entries))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.ensure_left(N as u64)?;
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn long(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn ensure_left(&self, count: u64) -> Result<()> {
        let left = self.len - self.at;
        ensure!(count <= left, "{count} bytes would follow, but the file has {left} more: it is damaged or cut short");
        Ok(())
    }

    /// Passes over bytes.
    fn skip(&mut self, count: u64) -> Result<()> {
        self.ensure_left(count)?;
        self.source.seek_relative(i64::try_from(count)?)?;
        self.at += count;
        Ok(())
    }

    /// Counts what candle will hold.
    fn hold(&mut self, bytes: u64) -> Result<()> {
        self.held = self.held.saturating_add(bytes);
        ensure!(
            self.held <= self.len.saturating_add(ROOM),
            "its header would take {} bytes of memory, more than the whole file: it is damaged",
            self.held
        );
        Ok(())
    }

    /// A name of a key or tensor.
    fn name(&mut self) -> Result<String> {
        let length = self.long()?;
        ensure!(length <= LONGEST_NAME, "a name in it would be {length} bytes long: it is damaged");
        self.ensure_left(length)?;
        let mut bytes = vec![0; usize::try_from(length)?];
        self.source.read_exact(&mut bytes)?;
        self.at += length;
        self.hold(length)?;
        String::from_utf8(bytes).context("a name in it is no UTF-8: it is damaged")
    }

    /// Passes over a value of metadata.
    fn value(&mut self, key: &str) -> Result<()> {
        let kind = self.number()?;
        if key == "general.alignment" {
            ensure!(kind == UINT32, "it is no 32-bit number");
            self.alignment = self.number()?.into();
            ensure!(self.alignment.is_power_of_two(), "{} is no power of two", self.alignment);
            return Ok(());
        }
        match kind {
            STRING => self.text(),
            ARRAY => self.array(),
            _ => self.skip(width(kind)?),
        }
    }

    fn text(&mut self) -> Result<()> {
        let length = self.long()?;
        self.hold(length)?;
        self.skip(length)
    }

    fn array(&mut self) -> Result<()> {
        let (kind, count) = (self.number()?, self.long()?);
        ensure!(kind != ARRAY, "it is a list of lists, which no reader of GGUF takes");
        let least = if kind == STRING { 8 } else { width(kind)? };
        self.ensure_left(count.saturating_mul(least))?;
        self.hold(count.saturating_mul(VALUE))?;
        match kind {
            STRING => (0..count).try_for_each(|_| self.text()),
            _ => self.skip(count.saturating_mul(least)),
        }
    }

    /// Where a tensor begins among the values, and its bytes.
    fn tensor(&mut self) -> Result<(u64, u64)> {
        let dimensions = self.number()?;
        ensure!((1..=4).contains(&dimensions), "it has {dimensions} dimensions: 1 to 4 are read");
        let sizes = (0..dimensions).map(|_| self.long()).collect::<Result<Vec<u64>>>()?;
        let dtype = type_of(self.number()?)?;
        let offset = self.long()?;
        let (block, width) = (dtype.block_size() as u64, dtype.type_size() as u64);
        let count = sizes.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
        let bytes = count.and_then(|count| (count / block).checked_mul(width));
        let bytes = bytes.with_context(|| format!("its size {sizes:?} overflows: the file is damaged"))?;
        ensure!(
            sizes[0].is_multiple_of(block),
            "its rows of {} values are no whole blocks of type {}, which has {block}",
            sizes[0],
            name_of(dtype)
        );
        Ok((offset, bytes))
    }
}

/// Bytes of a number or truth value of metadata.
fn width(kind: u32) -> Result<u64> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        _ => bail!("it has type {kind}, which GGUF does not know: the file is damaged"),
    }
}

/// A type of tensor by its number in the file.
fn type_of(number: u32) -> Result<GgmlDType> {
    if let Some((_, _, dtype)) = READ.iter().find(|(known, ..)| *known == number) {
        return Ok(*dtype);
    }
    let name = UNREAD.iter().find(|(known, _)| *known == number).map(|(_, name)| (*name).to_owned());
    bail!(
        "it has type {}, which cannot be read: {} can",
        name.unwrap_or_else(|| format!("number {number}")),
        READ.map(|(_, name, _)| name).join(", ")
    )
}
