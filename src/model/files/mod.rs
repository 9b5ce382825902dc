//! Files of weights: what reads and what is written has two traits, and each format a file.

pub mod folder;
pub mod gguf;
pub mod peft;
pub mod requantized;
pub mod safetensors;
pub mod untied;

use std::collections::HashSet;
use std::io::{Read, Seek};
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};

use super::config::ModelConfig;
use super::dtype::SaveDtype;
use super::layout::{Entry, Layout};
use crate::ops::linear::BlockType;

/// Values read or written at a time.
const PIECE: usize = 1 << 18;

/// What a file's bytes come from: the disk, or memory.
trait ReadSeek: Read + Seek {}

impl<T: Read + Seek> ReadSeek for T {}

/// An open file, or several, of named tensors, which are read in any order and never held whole.
pub trait TensorFile {
    /// Names of all tensors, sorted.
    fn names(&self) -> Vec<&str>;

    /// Name of the file that holds a tensor.
    fn file_of(&self, tensor: &str) -> &str;

    /// The shape of a tensor.
    fn shape(&self, tensor: &str) -> Result<&[usize]>;

    /// The smallest type that holds the values of a tensor exactly, if weights may be of the type that the file has.
    fn dtype(&self, tensor: &str) -> Result<SaveDtype>;

    /// The type of quantized blocks that the file has a tensor's values in, if it has.
    fn blocks(&self, _tensor: &str) -> Result<Option<BlockType>> {
        Ok(None)
    }

    /// Hands the rows of a tensor in quantized blocks to `sink(the first row, bytes)`, whole rows at a time.
    fn read_blocks(&mut self, tensor: &str, _sink: &mut dyn FnMut(usize, &[u8]) -> Result<()>) -> Result<()> {
        bail!("{} has no quantized blocks of {tensor}", self.file_of(tensor))
    }

    /// Hands the values of a tensor to `sink(index of the first, values)`, piece by piece.
    fn read(&mut self, tensor: &str, sink: &mut dyn FnMut(usize, &[f32]) -> Result<()>) -> Result<()>;

    /// All values of a tensor, to `out`, which has its length.
    fn read_to(&mut self, tensor: &str, out: &mut [f32]) -> Result<()> {
        self.read(tensor, &mut |first, values| {
            out[first..first + values.len()].copy_from_slice(values);
            Ok(())
        })
    }
}

/// Refuses a file whose tensors are not exactly `entries`: a missing one, one of another shape or of a type that cannot
/// be read, one too many. `optional` names those that may be there and are not read.
pub fn check(file: &dyn TensorFile, entries: &[Entry], optional: &dyn Fn(&str) -> bool) -> Result<()> {
    for Entry { name, shape: expected, .. } in entries {
        let shape = file.shape(name)?;
        ensure!(shape == expected, "tensor {name} has shape {shape:?}, but the config asks for {expected:?}");
        file.dtype(name).with_context(|| format!("tensor {name}"))?;
    }
    let known: HashSet<&str> = entries.iter().map(|e| e.name.as_str()).collect();
    match file.names().into_iter().find(|name| !known.contains(name) && !optional(name)) {
        Some(extra) => bail!("{} has a tensor {extra} that the config has no place for", file.file_of(extra)),
        None => Ok(()),
    }
}

/// Weights of a kind that can be taken from a model's files.
pub trait Load: Sized {
    /// Reads every tensor of `layout`, all of which the file has been checked to hold.
    fn load(config: &ModelConfig, layout: Layout, file: &mut dyn TensorFile) -> Result<Self>;
}

/// Values that can be asked for a stretch at a time, wherever and however they are kept.
pub trait Source {
    /// All tensors.
    fn entries(&self) -> &[Entry];

    /// Writes the values `range` of a tensor, counted from its first, to `out`. What a device holds may fail to come.
    fn values(&self, entry: &Entry, range: Range<usize>, out: &mut [f32]) -> Result<()>;
}

/// Calls `each(values)` with all values of a tensor, piece by piece.
pub fn pieces(source: &dyn Source, entry: &Entry, mut each: impl FnMut(&[f32]) -> Result<()>) -> Result<()> {
    let (total, mut piece) = (entry.range.len(), Vec::new());
    for first in (0..total).step_by(PIECE) {
        let range = first..total.min(first + PIECE);
        piece.resize(range.len(), 0.0);
        source.values(entry, range, &mut piece)?;
        each(&piece)?;
    }
    Ok(())
}
