//! The types of number that models are stored in.

use anyhow::{Result, bail};
use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};

/// The type of number a model is written in. Computation is in fp32 on a CPU whatever the file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum SaveDtype {
    /// Four bytes, exact.
    #[default]
    F32,
    /// Two bytes, rounded to 8 bits of mantissa.
    Bf16,
    /// Two bytes, rounded to 11 bits of mantissa, of a narrow range.
    F16,
}

impl SaveDtype {
    /// The name that `config.json` uses.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    pub(super) fn of(dtype: Dtype) -> Result<Self> {
        match dtype {
            Dtype::F32 => Ok(Self::F32),
            Dtype::BF16 => Ok(Self::Bf16),
            Dtype::F16 => Ok(Self::F16),
            other => bail!("type {other:?} is not supported: F32, BF16 and F16 are"),
        }
    }

    pub(super) fn file_type(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::BF16,
            Self::F16 => Dtype::F16,
        }
    }

    /// Bytes a value.
    pub fn size(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    /// Values of little-endian bytes, in place of what `out` held.
    pub(super) fn decode(self, bytes: &[u8], out: &mut Vec<f32>) {
        out.clear();
        match self {
            Self::F32 => out.extend(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b))),
            Self::Bf16 => out.extend(bytes.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32())),
            Self::F16 => out.extend(bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32())),
        }
    }

    /// Little-endian bytes of values, in place of what `out` held.
    pub(super) fn encode(self, values: &[f32], out: &mut Vec<u8>) {
        out.clear();
        match self {
            Self::F32 => out.extend(values.iter().flat_map(|x| x.to_le_bytes())),
            Self::Bf16 => out.extend(values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes())),
            Self::F16 => out.extend(values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes())),
        }
    }
}
