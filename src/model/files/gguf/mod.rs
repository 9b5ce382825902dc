//! Models in GGUF files, the format of llama.cpp, read and written through candle. Values are widened from their blocks a
//! piece at a time; shape, tokenizer and chat template come from the metadata, as the files that a model folder would
//! hold. Writing is left to `write`.

mod delta;
mod experts;
mod header;
mod latent;
mod metadata;
pub(super) mod mix;
mod names;
mod other;
mod pre;
mod shape;
mod tokens;
mod value;
mod vocabulary;
pub(super) mod write;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Cursor, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::CpuStorage;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Content;

use super::{PIECE, ReadSeek, TensorFile};
use crate::model::config::ModelConfig;
use crate::model::dtype::SaveDtype;
use crate::ops::attention::latent::Latent;
use crate::ops::linear::BlockType;
use delta::Meaning;
use latent::Half;
use metadata::Metadata;

pub use mix::Mix;
pub use other::{Other, sampled};
pub use write::Written;

/// A model in a GGUF file.
pub struct Model<'a> {
    /// Its shape.
    pub config: ModelConfig,
    /// Name and content of the small files that a model folder would hold.
    pub files: Vec<(String, Vec<u8>)>,
    /// Its weights, under their Hugging Face names.
    pub weights: Weights<'a>,
}

/// The tensors of a GGUF file.
pub struct Weights<'a> {
    name: String,
    source: Box<dyn ReadSeek + 'a>,
    tensors: BTreeMap<String, Tensor>,
}

/// Where a tensor lies, and how.
struct Tensor {
    dtype: GgmlDType,
    shape: Vec<usize>,
    /// Of its first block, from the start of the file.
    start: u64,
    /// The rows of a head, where rows stand in llama's order.
    turned: Option<usize>,
    /// How its values differ from Hugging Face's.
    meaning: Option<Meaning>,
    /// The two tensors that it is put together of, in place of the above.
    halves: Option<Box<([Tensor; 2], Latent)>>,
}

/// Whether a path is that of a GGUF file rather than of a model folder.
pub fn is_named(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

impl Model<'static> {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let open = || Self::read(name, Box::new(File::open(path)?));
        open().with_context(|| format!("GGUF file {}", path.display()))
    }
}

impl<'a> Model<'a> {
    /// The same from the content of a file.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self> {
        Self::read("the GGUF file".to_owned(), Box::new(Cursor::new(bytes)))
    }

    fn read(name: String, mut source: Box<dyn ReadSeek + 'a>) -> Result<Self> {
        header::check(&mut *source)?;
        source.seek(SeekFrom::Start(0))?;
        let content = Content::read(&mut BufReader::new(&mut *source))?;
        let metadata = Metadata(content.metadata);
        let latent = metadata.text("general.architecture")? == Some(latent::ARCHITECTURE);
        let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
        for (gguf, info) in content.tensor_infos {
            let (start, shape) = (content.tensor_data_offset + info.offset, info.shape.into_dims());
            let tensor = Tensor { dtype: info.ggml_dtype, shape, start, turned: None, meaning: None, halves: None };
            for (name, tensor) in tensor.by_expert(&gguf, latent) {
                let double = tensors.insert(name, tensor);
                ensure!(double.is_none(), "tensor {gguf} stands there under two names");
            }
        }
        let mut weights = Weights { name, source, tensors };
        let config = weights.model_shape(&metadata)?;
        let files = vocabulary::files(&metadata, config.vocab_size)?;
        Ok(Self { config, files, weights })
    }
}

impl Weights<'_> {
    /// The shape of the model, after which the tensors know the order of their rows.
    fn model_shape(&mut self, metadata: &Metadata) -> Result<ModelConfig> {
        let hub = names::to_hub(names::EMBEDDING, false);
        let embedding = self.tensors.get(&hub).with_context(|| format!("it has no tensor {}", names::EMBEDDING))?;
        let vocab = embedding.shape[0];
        let tied = !self.tensors.contains_key(&names::to_hub(names::OUTPUT, false));
        let tensors = self.tensors.len();
        let divisors = match self.tensors.remove(names::FREQUENCIES) {
            Some(tensor) => Some(self.all(&tensor)?),
            None => None,
        };
        let config = shape::read(metadata, &shape::Found { vocab, tensors, tied, divisors })?;
        for (name, tensor) in &mut self.tensors {
            tensor.turned = names::turned(name, &config).filter(|_| tensor.shape.len() == 2);
            tensor.meaning = Meaning::of(name, &config);
        }
        if let Some(latent) = config.latent()? {
            (0..config.num_hidden_layers).try_for_each(|layer| self.join(layer, latent.sizes))?;
        }
        Ok(config)
    }

    /// Makes one tensor of the two that expand the latents of a layer, where there are two.
    fn join(&mut self, layer: usize, sizes: Latent) -> Result<()> {
        let found = latent::HALVES.map(|part| self.tensors.remove(&format!("blk.{layer}.{part}")));
        let [Some(keys), Some(values)] = found else { return Ok(()) };
        for (tensor, half) in [(&keys, Half::Keys), (&values, Half::Values)] {
            let expected = half.shape(sizes);
            ensure!(
                tensor.shape == expected,
                "a tensor of layer {layer} has shape {:?}, not {expected:?}",
                tensor.shape
            );
        }
        let shape = vec![sizes.heads * (sizes.plain + sizes.value), sizes.rank];
        let (dtype, start) = (values.dtype, values.start);
        let tensor = Tensor {
            dtype,
            shape,
            start,
            turned: None,
            meaning: None,
            halves: Some(Box::new(([keys, values], sizes))),
        };
        self.tensors.insert(format!("model.layers.{layer}.{}", latent::EXPAND), tensor);
        Ok(())
    }

    /// All values of a small tensor.
    fn all(&mut self, tensor: &Tensor) -> Result<Vec<f32>> {
        let count: usize = tensor.shape.iter().product();
        ensure!(count <= PIECE, "a tensor of {count} values is too large for what it is");
        values(&mut *self.source, tensor, 0, count)
    }

    fn describe(&self, tensor: &str) -> Result<&Tensor> {
        self.tensors.get(tensor).with_context(|| match names::of_hub(tensor) {
            Some(name) => format!("{} has no tensor {name}", self.name),
            None => format!("{} has no tensor {tensor}", self.name),
        })
    }
}

impl Tensor {
    /// The tensors of Hugging Face's files that it is, with their names: one of each expert where it holds all of a layer.
    fn by_expert(self, gguf: &str, latent: bool) -> Vec<(String, Self)> {
        let [count, rows, width] = self.shape[..] else {
            let name = names::to_hub(gguf, latent);
            // A vector in GGUF's files, a row in Hugging Face's.
            let shape = match self.shape[..] {
                _ if names::is_row(gguf) => vec![1, self.values()],
                [channels, taps] if gguf.ends_with(names::TAPS) => vec![channels, 1, taps],
                _ => self.shape.clone(),
            };
            return vec![(name, Self { shape, ..self })];
        };
        let Some(names) = names::of_experts(gguf, count) else { return vec![(names::to_hub(gguf, latent), self)] };
        let bytes = self.bytes(rows * width) as u64;
        let expert = |(place, name)| {
            (
                name,
                Self {
                    shape: vec![rows, width],
                    start: self.start + place * bytes,
                    dtype: self.dtype,
                    turned: None,
                    meaning: None,
                    halves: None,
                },
            )
        };
        (0..).zip(names).map(expert).collect()
    }

    fn values(&self) -> usize {
        self.shape.iter().product()
    }

    /// Values of a row.
    fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Values that are read at a time: whole rows, and whole heads where the rows of a head change places. So no block is
    /// cut.
    fn piece(&self) -> Result<usize> {
        let unit = self.width() * self.turned.unwrap_or(1);
        ensure!(self.values().is_multiple_of(unit.max(1)), "its rows are no whole heads");
        Ok((unit * (PIECE / unit.max(1)).max(1)).max(1))
    }

    /// Bytes of so many values.
    fn bytes(&self, values: usize) -> usize {
        values / self.dtype.block_size() * self.dtype.type_size()
    }

    /// The bytes of `count` values from the `first` on, in words of four bytes, as blocks that hold fp32 numbers have to
    /// lie; the last word may have more.
    fn words(&self, source: &mut dyn ReadSeek, first: usize, count: usize) -> Result<Vec<u32>> {
        let mut words = vec![0u32; self.bytes(count).div_ceil(4)];
        source.seek(SeekFrom::Start(self.start + self.bytes(first) as u64))?;
        source.read_exact(&mut bytemuck::cast_slice_mut(&mut words)[..self.bytes(count)])?;
        Ok(words)
    }
}

/// The values of whole blocks, from the `first` one on.
fn values(source: &mut dyn ReadSeek, tensor: &Tensor, first: usize, count: usize) -> Result<Vec<f32>> {
    let words = tensor.words(source, first, count)?;
    let bytes = &bytemuck::cast_slice::<u32, u8>(&words)[..tensor.bytes(count)];
    match tensor.dtype.from_data(Cow::Borrowed(bytes)).dequantize(count)? {
        CpuStorage::F32(values) => Ok(values),
        _ => bail!("values of type {} were widened to no fp32", header::name_of(tensor.dtype)),
    }
}

/// The same type among those that are multiplied as they are.
pub(super) fn blocks_of(dtype: GgmlDType) -> Option<BlockType> {
    Some(match dtype {
        GgmlDType::Q4_0 => BlockType::Q4_0,
        GgmlDType::Q4_1 => BlockType::Q4_1,
        GgmlDType::Q5_0 => BlockType::Q5_0,
        GgmlDType::Q5_1 => BlockType::Q5_1,
        GgmlDType::Q8_0 => BlockType::Q8_0,
        GgmlDType::Q2K => BlockType::Q2K,
        GgmlDType::Q3K => BlockType::Q3K,
        GgmlDType::Q4K => BlockType::Q4K,
        GgmlDType::Q5K => BlockType::Q5K,
        GgmlDType::Q6K => BlockType::Q6K,
        GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 | GgmlDType::Q8_1 | GgmlDType::Q8K => return None,
    })
}

impl TensorFile for Weights<'_> {
    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn file_of(&self, _: &str) -> &str {
        &self.name
    }

    fn shape(&self, tensor: &str) -> Result<&[usize]> {
        Ok(&self.describe(tensor)?.shape)
    }

    fn dtype(&self, tensor: &str) -> Result<SaveDtype> {
        Ok(match self.describe(tensor)?.dtype {
            GgmlDType::BF16 => SaveDtype::Bf16,
            GgmlDType::F16 => SaveDtype::F16,
            _ => SaveDtype::F32,
        })
    }

    fn blocks(&self, tensor: &str) -> Result<Option<BlockType>> {
        let tensor = self.describe(tensor)?;
        Ok(blocks_of(tensor.dtype).filter(|_| tensor.halves.is_none()))
    }

    fn read_blocks(&mut self, name: &str, sink: &mut dyn FnMut(usize, &[u8]) -> Result<()>) -> Result<()> {
        let tensor = self.describe(name)?;
        let (total, width, piece) = (tensor.values(), tensor.width(), tensor.piece().context(name.to_owned())?);
        let tensor = &self.tensors[name];
        for first in (0..total).step_by(piece) {
            let count = piece.min(total - first);
            let words = tensor.words(&mut *self.source, first, count);
            let words = words.with_context(|| format!("cannot read {name} of {}", self.name))?;
            let bytes = &bytemuck::cast_slice(&words)[..tensor.bytes(count)];
            match tensor.turned {
                Some(rows) => sink(first / width, &names::in_halves(bytes, rows, tensor.bytes(width)))?,
                None => sink(first / width, bytes)?,
            }
        }
        Ok(())
    }

    fn read(&mut self, name: &str, sink: &mut dyn FnMut(usize, &[f32]) -> Result<()>) -> Result<()> {
        let tensor = self.describe(name)?;
        let (total, width, piece) = (tensor.values(), tensor.width(), tensor.piece().context(name.to_owned())?);
        let tensor = &self.tensors[name];
        if let Some(([keys, of_values], sizes)) = tensor.halves.as_deref() {
            let mut all = |half: &Tensor| {
                let read = values(&mut *self.source, half, 0, half.values());
                read.with_context(|| format!("cannot read {name} of {}", self.name))
            };
            return sink(0, &latent::joined(&all(keys)?, &all(of_values)?, *sizes));
        }
        for first in (0..total).step_by(piece) {
            let read = values(&mut *self.source, tensor, first, piece.min(total - first));
            let mut read = read.with_context(|| format!("cannot read {name} of {}", self.name))?;
            match (tensor.turned, tensor.meaning) {
                (Some(rows), _) => sink(first, &names::in_halves(&read, rows, width))?,
                (None, Some(meaning)) => {
                    meaning.read(&mut read);
                    sink(first, &read)?;
                }
                (None, None) => sink(first, &read)?,
            }
        }
        Ok(())
    }
}
