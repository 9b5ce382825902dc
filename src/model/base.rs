//! Weights that are not trained: the only copy of each matrix is the one that products read, in the type of its file, be
//! that bf16 or quantized blocks.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, bail};
use reckon_datasets::Counted;

use crate::ops::linear::{PackedMatrix, Panels, Precision, Stored};

use super::config::ModelConfig;
use super::dtype::SaveDtype;
use super::files::{Load, Source, TensorFile};
use super::layout::{Entry, Layout, Matrix};

/// What is multiplied or added as one.
#[derive(Debug, Clone)]
enum Part {
    Matrix(PackedMatrix),
    Vector(Vec<f32>),
}

/// A frozen model.
#[derive(Debug, Clone)]
pub struct Base {
    /// Names and shapes; its places are those of a flat buffer that does not exist.
    pub layout: Layout,
    /// Differs when a weight or the shape does.
    pub fingerprint: String,
    /// Bytes that it takes as it was read.
    pub bytes: usize,
    /// By the place at which each begins; copies share them.
    parts: Arc<BTreeMap<usize, Part>>,
}

impl Load for Base {
    fn load(config: &ModelConfig, layout: Layout, file: &mut dyn TensorFile) -> Result<Self> {
        let mut fingerprint = Fingerprint::default();
        let shape = serde_json::to_vec(config)?;
        fingerprint.add(&shape.iter().map(|&byte| f32::from(byte)).collect::<Vec<_>>());
        let (mut parts, bytes) = (BTreeMap::new(), Self::bytes_in(&layout, |entry| stored_in(file, entry))?);
        for range in layout.parts() {
            let entries: Vec<&Entry> = layout.entries_of(&range).collect();
            let part = match entries[0].shape[..] {
                [_, k] => Part::Matrix(matrix(file, &entries, k, &mut fingerprint)?),
                _ => Part::Vector(vector(file, &entries, range, &mut fingerprint)?),
            };
            parts.insert(entries[0].range.start, part);
        }
        Ok(Self { layout, fingerprint: fingerprint.text(), bytes, parts: Arc::new(parts) })
    }
}

/// What a matrix's tensor is kept as: the type of its file, where that is multiplied.
pub fn stored_in(file: &dyn TensorFile, entry: &Entry) -> Result<Stored> {
    Ok(match file.blocks(&entry.name)? {
        Some(kind) => Stored::Blocks(kind),
        None if file.dtype(&entry.name)? == SaveDtype::Bf16 => Stored::Bf16,
        None => Stored::F32,
    })
}

/// Tensors that make one matrix, cut where they are stored in another way.
fn alike<'a>(
    entries: &[&'a Entry],
    mut stored: impl FnMut(&Entry) -> Result<Stored>,
) -> Result<Vec<(Stored, Vec<&'a Entry>)>> {
    let mut runs: Vec<(Stored, Vec<&Entry>)> = Vec::new();
    for &entry in entries {
        let stored = stored(entry)?;
        match runs.last_mut().filter(|(last, _)| *last == stored) {
            Some((_, run)) => run.push(entry),
            None => runs.push((stored, vec![entry])),
        }
    }
    Ok(runs)
}

fn rows(entries: &[&Entry]) -> usize {
    entries.iter().map(|entry| entry.shape[0]).sum()
}

/// Reads a matrix of rows of `k` values.
fn matrix(
    file: &mut dyn TensorFile,
    entries: &[&Entry],
    k: usize,
    fingerprint: &mut Fingerprint,
) -> Result<PackedMatrix> {
    let mut parts = Vec::new();
    for (stored, entries) in alike(entries, |entry| stored_in(file, entry))? {
        let (mut panels, mut row) = (Panels::zeros(stored, rows(&entries), k), 0);
        for entry in entries {
            if let Stored::Blocks(_) = stored {
                file.read_blocks(&entry.name, &mut |first, bytes| {
                    fingerprint.add_bytes(bytes);
                    panels.put_blocks(row + first, bytes);
                    Ok(())
                })?;
            } else {
                file.read(&entry.name, &mut |first, values| {
                    fingerprint.add(values);
                    panels.put(row * k + first, values);
                    Ok(())
                })?;
            }
            row += entry.shape[0];
        }
        parts.push(panels);
    }
    Ok(parts.into())
}

/// Reads vectors, one behind the other.
fn vector(
    file: &mut dyn TensorFile,
    entries: &[&Entry],
    range: Range<usize>,
    fingerprint: &mut Fingerprint,
) -> Result<Vec<f32>> {
    let mut vector = vec![0f32; range.len()];
    for entry in entries {
        let start = entry.range.start - range.start;
        file.read(&entry.name, &mut |first, values| {
            fingerprint.add(values);
            vector[start + first..][..values.len()].copy_from_slice(values);
            Ok(())
        })?;
    }
    Ok(vector)
}

impl Base {
    /// Bytes that the weights of a layout take, whose matrices are stored as `stored` says.
    pub fn bytes_in(layout: &Layout, mut stored: impl FnMut(&Entry) -> Result<Stored>) -> Result<usize> {
        let mut bytes = 0;
        for range in layout.parts() {
            let entries: Vec<&Entry> = layout.entries_of(&range).collect();
            bytes += match entries[0].shape[..] {
                [_, k] => alike(&entries, &mut stored)?.iter().map(|(stored, run)| stored.bytes(rows(run), k)).sum(),
                _ => 4 * range.len(),
            };
        }
        Ok(bytes)
    }

    /// The same matrices, ready for products of a precision. One after the other, so that there are never two of all.
    pub(super) fn in_precision(self, precision: Precision) -> Self {
        let matrices = self.layout.layers.iter().flat_map(|layer| layer.matrices());
        let exact: HashSet<usize> = matrices.filter(|matrix| matrix.exact).map(|matrix| matrix.range.start).collect();
        let convert = |place, part| match part {
            Part::Matrix(matrix) if !exact.contains(&place) => Part::Matrix(matrix.in_precision(precision)),
            part => part,
        };
        let parts = Arc::unwrap_or_clone(self.parts).into_iter();
        Self { parts: Arc::new(parts.map(|(place, part)| (place, convert(place, part))).collect()), ..self }
    }

    /// The matrix at a place of the layout.
    pub(super) fn matrix(&self, place: &Matrix) -> &PackedMatrix {
        match self.parts.get(&place.range.start) {
            Some(Part::Matrix(matrix)) => matrix,
            _ => panic!("no matrix begins at {}", place.range.start),
        }
    }

    /// The vector at a place of the layout.
    pub(super) fn vector(&self, place: &Range<usize>) -> &[f32] {
        match self.parts.get(&place.start) {
            Some(Part::Vector(vector)) => vector,
            _ => panic!("no vector begins at {}", place.start),
        }
    }
}

impl Source for Base {
    fn entries(&self) -> &[Entry] {
        &self.layout.entries
    }

    fn values(&self, entry: &Entry, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        let Some((start, part)) = self.parts.range(..=entry.range.start).next_back() else {
            bail!("{} is not in the base", entry.name)
        };
        let offset = entry.range.start - start;
        let range = offset + range.start..offset + range.end;
        match part {
            Part::Matrix(matrix) => matrix.values(range, out),
            Part::Vector(vector) => out.copy_from_slice(&vector[range]),
        }
        Ok(())
    }
}

/// A hash in several lanes, which keeps up with the disk. Whoever adds in pieces adds the same ones for the same hash: all
/// but the last of a multiple of 8 values, or 32 bytes, give that of the whole.
#[derive(Debug, Default)]
pub struct Fingerprint([u64; 8]);

impl Fingerprint {
    /// Odd, with bits all over: multiplication carries a change to the high half, the rotation back down.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

    /// Takes values in by their bits.
    pub fn add(&mut self, values: &[f32]) {
        for chunk in values.chunks(8) {
            for (lane, value) in self.0.iter_mut().zip(chunk) {
                *lane = (*lane ^ u64::from(value.to_bits())).wrapping_mul(Self::FACTOR).rotate_left(29);
            }
        }
    }

    /// Takes bytes in as words of four.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(32) {
            for (lane, word) in self.0.iter_mut().zip(chunk.chunks(4)) {
                let word = word.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
                *lane = (*lane ^ word).wrapping_mul(Self::FACTOR).rotate_left(29);
            }
        }
    }

    /// The hash so far, in 16 digits.
    pub fn text(&self) -> String {
        format!("{:016x}", Counted::new(&self.0).next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_follows_from_all_bits_and_not_from_the_pieces_that_they_come_in() {
        let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 37 % 251) as u8).collect();
        let of = |bytes: &[u8], piece: usize| {
            let mut fingerprint = Fingerprint::default();
            bytes.chunks(piece).for_each(|piece| fingerprint.add_bytes(piece));
            fingerprint.text()
        };
        let whole = of(&bytes, bytes.len());
        assert!([32, 64, 992].iter().all(|&piece| of(&bytes, piece) == whole));
        for place in [0, 31, 32, 500, 999] {
            let mut other = bytes.clone();
            other[place] ^= 1;
            assert_ne!(of(&other, 64), whole, "byte {place}");
        }
        let values: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte)).collect();
        let (mut in_values, mut in_bytes) = (Fingerprint::default(), Fingerprint::default());
        in_values.add(&values);
        in_bytes.add_bytes(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>());
        assert_eq!(in_values.text(), in_bytes.text(), "values are their bits");
    }
}
