//! Metadata as it is written to a GGUF file.

use std::io::Write;

use anyhow::Result;

/// A value under a key.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Entry {
    /// A text.
    Text(String),
    /// A whole number from 0 on.
    Count(u32),
    /// A number.
    Number(f32),
    /// A truth value.
    Flag(bool),
    /// A list of texts.
    Texts(Vec<String>),
    /// A list of whole numbers.
    Whole(Vec<i32>),
    /// A list of numbers.
    Numbers(Vec<f32>),
    /// A list of truth values.
    Flags(Vec<bool>),
}

/// Writes a text with its length before it.
pub(super) fn write_text(out: &mut impl Write, text: &str) -> Result<()> {
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    Ok(out.write_all(text.as_bytes())?)
}

impl Entry {
    /// Writes the number of its type, and the value.
    pub(super) fn write(&self, out: &mut impl Write) -> Result<()> {
        let kind: u32 = match self {
            Self::Count(_) => 4,
            Self::Number(_) => 6,
            Self::Flag(_) => 7,
            Self::Text(_) => 8,
            Self::Texts(_) | Self::Whole(_) | Self::Numbers(_) | Self::Flags(_) => 9,
        };
        out.write_all(&kind.to_le_bytes())?;
        let list = |out: &mut dyn Write, kind: u32, count: usize| -> Result<()> {
            out.write_all(&kind.to_le_bytes())?;
            Ok(out.write_all(&(count as u64).to_le_bytes())?)
        };
        match self {
            Self::Text(text) => write_text(out, text)?,
            Self::Count(number) => out.write_all(&number.to_le_bytes())?,
            Self::Number(number) => out.write_all(&number.to_le_bytes())?,
            Self::Flag(flag) => out.write_all(&[u8::from(*flag)])?,
            Self::Texts(texts) => {
                list(out, 8, texts.len())?;
                texts.iter().try_for_each(|text| write_text(out, text))?;
            }
            Self::Whole(numbers) => {
                list(out, 5, numbers.len())?;
                numbers.iter().try_for_each(|number| out.write_all(&number.to_le_bytes()))?;
            }
            Self::Numbers(numbers) => {
                list(out, 6, numbers.len())?;
                numbers.iter().try_for_each(|number| out.write_all(&number.to_le_bytes()))?;
            }
            Self::Flags(flags) => {
                list(out, 7, flags.len())?;
                flags.iter().try_for_each(|flag| out.write_all(&[u8::from(*flag)]))?;
            }
        }
        Ok(())
    }
}
