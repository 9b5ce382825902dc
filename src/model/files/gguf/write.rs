//! A GGUF file, written a piece of a tensor at a time: quantized by candle, named and ordered as llama.cpp reads it.

use std::io::Write;

use anyhow::{Context, Result, bail};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use tokenizers::Tokenizer;

use super::delta::Meaning;
use super::latent::{self, Half};
use super::mix::{Mix, Shape};
use super::tokens::Tokens;
use super::value::{Entry, write_text};
use super::{header, names, shape};
use crate::model::config::ModelConfig;
use crate::model::dtype::SaveDtype;
use crate::model::files::{PIECE, Source};
use crate::model::layout;
use crate::ops::attention::latent::Latent;
use crate::parallel::{Pool, map_in_order};

/// Tensors begin at multiples of so many bytes.
const ALIGNMENT: usize = 32;

/// A model that is written.
pub struct Written<'a> {
    /// What the file calls it.
    pub name: &'a str,
    /// Its shape.
    pub config: &'a ModelConfig,
    /// Text to tokens.
    pub tokenizer: &'a Tokenizer,
    /// Name and content of the small files of its folder.
    pub files: &'a [(String, Vec<u8>)],
    /// Its values.
    pub weights: &'a dyn Source,
    /// Threads that quantize.
    pub threads: usize,
}

/// A tensor of the file.
struct Place<'a> {
    name: String,
    dtype: GgmlDType,
    /// Where its values come from.
    values: Values<'a>,
}

enum Values<'a> {
    /// Of one tensor, or of those of all experts of a layer in order.
    Entries(Vec<&'a layout::Entry>),
    /// One of the two that a matrix which expands latents is.
    Half(&'a layout::Entry, Half, Latent),
    /// What each rotary frequency is divided by.
    Divisors(Vec<f32>),
}

impl Place<'_> {
    /// Its shape, rows first.
    fn shape(&self) -> Vec<usize> {
        match &self.values {
            Values::Entries(entries) => match &entries[0].shape[..] {
                shape if names::is_of_experts(&self.name) => [&[entries.len()], shape].concat(),
                shape if names::is_row(&self.name) => shape[1..].to_vec(),
                [channels, 1, taps] if self.name.ends_with(names::TAPS) => vec![*channels, *taps],
                shape => shape.to_vec(),
            },
            Values::Half(_, half, sizes) => half.shape(*sizes).to_vec(),
            Values::Divisors(divisors) => vec![divisors.len()],
        }
    }

    fn bytes(&self) -> usize {
        self.shape().iter().product::<usize>() / self.dtype.block_size() * self.dtype.type_size()
    }
}

impl Written<'_> {
    /// Writes the file.
    pub fn write(&self, mix: Mix, out: &mut impl Write) -> Result<()> {
        // Of a family that the format has names for.
        shape::architecture(self.config)?;
        let places = self.places(mix)?;
        let mut head = Vec::new();
        self.write_header(mix, &places, &mut head)?;
        out.write_all(&head)?;
        pad(head.len(), out)?;
        for place in &places {
            match &place.values {
                Values::Divisors(divisors) => out.write_all(bytemuck::cast_slice(divisors))?,
                Values::Half(entry, half, sizes) => {
                    let mut whole = vec![0.0; entry.range.len()];
                    self.weights.values(entry, 0..whole.len(), &mut whole)?;
                    let (values, width) = (half.of(&whole, *sizes), half.shape(*sizes)[2]);
                    for bytes in encode_on_threads(&values, width, place.dtype, self.threads)? {
                        out.write_all(&bytes)?;
                    }
                }
                Values::Entries(entries) => {
                    entries.iter().try_for_each(|entry| self.write_tensor(entry, place.dtype, out))?;
                }
            }
            pad(place.bytes(), out)?;
        }
        Ok(out.flush()?)
    }

    /// The tensors of the file, in their order.
    fn places(&self, mix: Mix) -> Result<Vec<Place<'_>>> {
        let config = self.config;
        let heads = config.heads();
        let (layers, tied) = (config.num_hidden_layers, config.tie_word_embeddings);
        let experts = config.experts()?.map_or(0, |experts| experts.router.experts);
        let shape = Shape { layers, tied, group: heads.query / heads.key_value, experts };
        let mut places: Vec<Place> = Vec::new();
        let latent = config.latent()?.map(|latent| latent.sizes);
        for entry in self.weights.entries() {
            let expanding = entry.name.strip_suffix(latent::EXPAND).and_then(|name| name.strip_prefix("model.layers."));
            if let (Some(layer), Some(sizes)) = (expanding, latent) {
                for (part, half) in latent::HALVES.into_iter().zip([Half::Keys, Half::Values]) {
                    let (name, values) = (format!("blk.{layer}{part}"), Values::Half(entry, half, sizes));
                    places.push(Place { name, dtype: GgmlDType::F32, values });
                }
                continue;
            }
            let name = names::written(&entry.name, config);
            let name = name.with_context(|| format!("tensor {} has no name in a GGUF file", entry.name))?;
            let of_experts = names::is_of_experts(&name);
            match places.iter_mut().rfind(|place| of_experts && place.name == name) {
                Some(Place { values: Values::Entries(entries), .. }) => entries.push(entry),
                _ => places.push(Place { name, dtype: GgmlDType::F32, values: Values::Entries(vec![entry]) }),
            }
        }
        places.iter_mut().for_each(|place| place.dtype = mix.of_tensor(&place.name, &place.shape(), shape));
        if let Some(divisors) = shape::divisors(config)? {
            let (name, values) = (names::FREQUENCIES.to_owned(), Values::Divisors(divisors));
            places.insert(0, Place { name, dtype: GgmlDType::F32, values });
        }
        Ok(places)
    }

    fn write_header(&self, mix: Mix, places: &[Place], out: &mut Vec<u8>) -> Result<()> {
        let metadata = self.metadata(mix)?;
        out.write_all(b"GGUF")?;
        out.write_all(&3u32.to_le_bytes())?;
        out.write_all(&(places.len() as u64).to_le_bytes())?;
        out.write_all(&(metadata.len() as u64).to_le_bytes())?;
        for (key, entry) in &metadata {
            write_text(out, key)?;
            entry.write(out)?;
        }
        let mut offset = 0;
        for place in places {
            let shape = place.shape();
            write_text(out, &place.name)?;
            out.write_all(&(shape.len() as u32).to_le_bytes())?;
            shape.iter().rev().try_for_each(|size| out.write_all(&(*size as u64).to_le_bytes()))?;
            let dtype = header::number_of(place.dtype).context("a type that GGUF has no number for")?;
            out.write_all(&dtype.to_le_bytes())?;
            out.write_all(&(offset as u64).to_le_bytes())?;
            offset += place.bytes().next_multiple_of(ALIGNMENT);
        }
        Ok(())
    }

    fn metadata(&self, mix: Mix) -> Result<Vec<(String, Entry)>> {
        let file = |name: &str| self.files.iter().find(|(known, _)| known == name).map(|(_, bytes)| bytes.as_slice());
        let architecture = shape::architecture(self.config)?;
        let general = |key: &str| format!("general.{key}");
        let mut metadata = vec![
            (general("architecture"), Entry::Text(architecture.to_owned())),
            (general("type"), Entry::Text("model".to_owned())),
            (general("name"), Entry::Text(self.name.to_owned())),
            (general("file_type"), Entry::Count(mix.file_type())),
            (general("quantization_version"), Entry::Count(2)),
        ];
        metadata.extend(shape::entries(self.config)?);
        let tokens = Tokens::of(self.config, self.tokenizer, &file)?;
        metadata.extend(tokens.entries(file("chat_template.jinja"))?);
        Ok(metadata)
    }

    /// Writes the values of a tensor, whole rows at a time, and whole heads where the rows of a head change places.
    fn write_tensor(&self, entry: &layout::Entry, dtype: GgmlDType, out: &mut impl Write) -> Result<()> {
        let width = entry.shape.last().copied().unwrap_or(1);
        let (turned, meaning) = (names::turned(&entry.name, self.config), Meaning::of(&entry.name, self.config));
        let unit = width * turned.unwrap_or(1);
        let (total, piece) = (entry.range.len(), unit * (PIECE / unit).max(1) * self.threads);
        let mut values = Vec::new();
        for first in (0..total).step_by(piece) {
            let range = first..total.min(first + piece);
            values.resize(range.len(), 0.0);
            self.weights.values(entry, range, &mut values)?;
            if let Some(meaning) = meaning {
                meaning.write(&mut values);
            }
            if let Some(rows) = turned {
                values = names::in_pairs(&values, rows, width);
            }
            for bytes in encode_on_threads(&values, width, dtype, self.threads)? {
                out.write_all(&bytes)?;
            }
        }
        Ok(())
    }
}

/// Rows of `width` values in blocks of a type, in several pieces.
pub(in crate::model::files) fn encode_on_threads(
    values: &[f32],
    width: usize,
    dtype: GgmlDType,
    threads: usize,
) -> Result<Vec<Vec<u8>>> {
    let rows = (values.len() / width).div_ceil(threads);
    let parts: Vec<&[f32]> = values.chunks(rows * width).collect();
    let mut all = Vec::with_capacity(parts.len());
    let work = |(): &mut (), part: usize| encode(parts[part], width, dtype);
    map_in_order(parts.len(), threads, &Pool::default(), work, |bytes| all.push(bytes));
    all.into_iter().collect()
}

fn encode(values: &[f32], width: usize, dtype: GgmlDType) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match dtype {
        GgmlDType::F32 => SaveDtype::F32.encode(values, &mut bytes),
        GgmlDType::F16 => SaveDtype::F16.encode(values, &mut bytes),
        GgmlDType::BF16 => SaveDtype::Bf16.encode(values, &mut bytes),
        _ => {
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                bail!("a weight is {value}, which no block holds");
            }
            let rows = Tensor::from_slice(values, (values.len() / width, width), &Device::Cpu)?;
            bytes = QTensor::quantize(&rows, dtype)?.data()?.into_owned();
        }
    }
    Ok(bytes)
}

/// Fills up to where the next tensor begins, behind `written` bytes.
fn pad(written: usize, out: &mut impl Write) -> Result<()> {
    Ok(out.write_all(&[0; ALIGNMENT][..written.next_multiple_of(ALIGNMENT) - written])?)
}
