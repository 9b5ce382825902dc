//! A file whose matrices are taken into memory in another type than it has them in: quantized by candle, or rounded to
//! bf16, a piece at a time as they are read.

use anyhow::Result;
use candle_core::quantized::GgmlDType;
use serde::{Deserialize, Serialize};

use super::gguf::mix::fitting;
use super::gguf::{blocks_of, write};
use super::{PIECE, TensorFile};
use crate::model::dtype::SaveDtype;
use crate::ops::linear::{BlockType, Stored};
use crate::parallel::default_threads;

/// The words of `lora.base`: what the matrices of a frozen base are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseType {
    /// 8.5 bits a weight.
    Q8_0,
    /// 4.5 bits a weight, and 8.5 in the embedding and the output matrix.
    Q4K,
    /// 16 bits a weight.
    Bf16,
}

impl BaseType {
    /// What a matrix by its Hugging Face name is kept in, whose rows have `width` values; `None` leaves it as the file
    /// has it, because such rows are no whole blocks.
    pub fn of(self, name: &str, width: usize) -> Option<Stored> {
        if self == Self::Bf16 {
            return Some(Stored::Bf16);
        }
        self.quantized(name, width).map(|(_, kind)| Stored::Blocks(kind))
    }

    fn quantized(self, name: &str, width: usize) -> Option<(GgmlDType, BlockType)> {
        let in_layer = name.starts_with("model.layers.");
        let wanted = if self == Self::Q4K && in_layer { GgmlDType::Q4K } else { GgmlDType::Q8_0 };
        let dtype = fitting(wanted, width);
        Some((dtype, blocks_of(dtype)?))
    }
}

/// The file, and what its matrices are taken as.
pub struct Requantized<'a> {
    /// What is read.
    pub file: &'a mut dyn TensorFile,
    /// What is made of it.
    pub base: BaseType,
}

impl Requantized<'_> {
    /// The types of a tensor if it is a matrix that becomes quantized.
    fn quantized(&self, tensor: &str) -> Result<Option<(GgmlDType, BlockType)>> {
        match self.file.shape(tensor)? {
            [_, width] if self.base != BaseType::Bf16 => Ok(self.base.quantized(tensor, *width)),
            _ => Ok(None),
        }
    }
}

impl TensorFile for Requantized<'_> {
    fn names(&self) -> Vec<&str> {
        self.file.names()
    }

    fn file_of(&self, tensor: &str) -> &str {
        self.file.file_of(tensor)
    }

    fn shape(&self, tensor: &str) -> Result<&[usize]> {
        self.file.shape(tensor)
    }

    fn dtype(&self, tensor: &str) -> Result<SaveDtype> {
        let is_matrix = self.file.shape(tensor)?.len() == 2;
        if is_matrix && self.base == BaseType::Bf16 { Ok(SaveDtype::Bf16) } else { self.file.dtype(tensor) }
    }

    fn blocks(&self, tensor: &str) -> Result<Option<BlockType>> {
        let is_matrix = self.file.shape(tensor)?.len() == 2;
        match self.quantized(tensor)? {
            Some((_, kind)) => Ok(Some(kind)),
            None if is_matrix && self.base == BaseType::Bf16 => Ok(None),
            None => self.file.blocks(tensor),
        }
    }

    fn read_blocks(&mut self, tensor: &str, sink: &mut dyn FnMut(usize, &[u8]) -> Result<()>) -> Result<()> {
        let Some((dtype, kind)) = self.quantized(tensor)? else { return self.file.read_blocks(tensor, sink) };
        if self.file.blocks(tensor)? == Some(kind) {
            return self.file.read_blocks(tensor, sink);
        }
        let width = self.file.shape(tensor)?[1];
        let whole = width * (PIECE / width).max(1);
        let (mut waiting, mut row): (Vec<f32>, usize) = (Vec::new(), 0);
        let mut encode = |values: &[f32]| {
            for bytes in write::encode_on_threads(values, width, dtype, default_threads())? {
                sink(row, &bytes)?;
                row += bytes.len() / (width / kind.values() * kind.bytes());
            }
            Ok::<_, anyhow::Error>(())
        };
        self.file.read(tensor, &mut |_, values| {
            waiting.extend_from_slice(values);
            let ready = waiting.len() / whole * whole;
            if ready > 0 {
                encode(&waiting[..ready])?;
                waiting.drain(..ready);
            }
            Ok(())
        })?;
        if waiting.is_empty() { Ok(()) } else { encode(&waiting) }
    }

    fn read(&mut self, tensor: &str, sink: &mut dyn FnMut(usize, &[f32]) -> Result<()>) -> Result<()> {
        if self.base != BaseType::Bf16 || self.file.shape(tensor)?.len() != 2 {
            return self.file.read(tensor, sink);
        }
        let mut rounded = Vec::new();
        self.file.read(tensor, &mut |first, values| {
            rounded.clear();
            rounded.extend(values.iter().map(|value| half::bf16::from_f32(*value).to_f32()));
            sink(first, &rounded)
        })
    }
}
