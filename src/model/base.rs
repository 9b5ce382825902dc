//! Weights that are not trained: the only copy of each matrix is the one that products read, in the type of its file.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Result, bail};
use reckon_datasets::Counted;

use crate::ops::linear::{PackedMatrix, Panels, Precision};

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
    /// By the place at which each begins.
    parts: BTreeMap<usize, Part>,
}

impl Load for Base {
    fn load(config: &ModelConfig, layout: Layout, file: &mut dyn TensorFile) -> Result<Self> {
        let mut fingerprint = Fingerprint::default();
        let shape = serde_json::to_vec(config)?;
        fingerprint.add(&shape.iter().map(|&byte| f32::from(byte)).collect::<Vec<_>>());
        let mut parts = BTreeMap::new();
        for range in layout.parts() {
            let entries: Vec<&Entry> = layout.entries_of(&range).collect();
            let mut part = room(file, &entries, range.len())?;
            for entry in entries {
                let start = entry.range.start - range.start;
                file.read(&entry.name, &mut |first, values| {
                    fingerprint.add(values);
                    part.put(start + first, values);
                    Ok(())
                })?;
            }
            parts.insert(range.start, part.into());
        }
        Ok(Self { layout, fingerprint: fingerprint.text(), parts })
    }
}

/// A part while it is read.
enum Room {
    Matrix(Panels),
    Vector(Vec<f32>),
}

/// Room for `len` values: in bf16 if all of a matrix's tensors are.
fn room(file: &dyn TensorFile, entries: &[&Entry], len: usize) -> Result<Room> {
    let [_, k] = entries[0].shape[..] else { return Ok(Room::Vector(vec![0f32; len])) };
    let mut halved = true;
    for entry in entries {
        halved &= file.dtype(&entry.name)? == SaveDtype::Bf16;
    }
    let zeros = if halved { Panels::zeros_bf16 } else { Panels::zeros };
    Ok(Room::Matrix(zeros(len / k, k)))
}

impl From<Room> for Part {
    fn from(room: Room) -> Self {
        match room {
            Room::Matrix(panels) => Self::Matrix(panels.into()),
            Room::Vector(vector) => Self::Vector(vector),
        }
    }
}

impl Room {
    fn put(&mut self, first: usize, values: &[f32]) {
        match self {
            Self::Matrix(matrix) => matrix.put(first, values),
            Self::Vector(vector) => vector[first..first + values.len()].copy_from_slice(values),
        }
    }
}

impl Base {
    /// The same matrices, ready for products of a precision. One after the other, so that there are never two of all.
    pub(super) fn in_precision(self, precision: Precision) -> Self {
        let convert = |part| match part {
            Part::Matrix(matrix) => Part::Matrix(matrix.in_precision(precision)),
            vector => vector,
        };
        Self { parts: self.parts.into_iter().map(|(place, part)| (place, convert(part))).collect(), ..self }
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

/// A hash in several lanes, which keeps up with the disk.
#[derive(Default)]
struct Fingerprint([u64; 8]);

impl Fingerprint {
    /// Odd, with bits all over: multiplication carries a change to the high half, the rotation back down.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

    fn add(&mut self, values: &[f32]) {
        for chunk in values.chunks(8) {
            for (lane, value) in self.0.iter_mut().zip(chunk) {
                *lane = (*lane ^ u64::from(value.to_bits())).wrapping_mul(Self::FACTOR).rotate_left(29);
            }
        }
    }

    fn text(&self) -> String {
        format!("{:016x}", Counted::new(&self.0).next_u64())
    }
}
