//! Models in GGUF files, the format of llama.cpp, read and written through candle. Values are widened from their blocks a
//! piece at a time; shape, tokenizer and chat template come from the metadata, as the files that a model folder would
//! hold. Writing is left to `write`.

mod header;
mod metadata;
mod mix;
mod names;
mod pre;
mod shape;
mod tokens;
mod value;
mod vocabulary;
mod write;

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
use metadata::Metadata;

pub use mix::Mix;
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
        let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
        for (gguf, info) in content.tensor_infos {
            let (start, shape) = (content.tensor_data_offset + info.offset, info.shape.into_dims());
            let tensor = Tensor { dtype: info.ggml_dtype, shape, start, turned: None };
            let double = tensors.insert(names::to_hub(&gguf), tensor);
            ensure!(double.is_none(), "tensor {gguf} stands there under two names");
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
        let hub = names::to_hub(names::EMBEDDING);
        let embedding = self.tensors.get(&hub).with_context(|| format!("it has no tensor {}", names::EMBEDDING))?;
        let vocab = embedding.shape[0];
        let tied = !self.tensors.contains_key(&names::to_hub(names::OUTPUT));
        let tensors = self.tensors.len();
        let divisors = match self.tensors.remove(names::FREQUENCIES) {
            Some(tensor) => Some(self.all(&tensor)?),
            None => None,
        };
        let config = shape::read(metadata, &shape::Found { vocab, tensors, tied, divisors })?;
        for (name, tensor) in &mut self.tensors {
            tensor.turned = names::turned(name, &config).filter(|_| tensor.shape.len() == 2);
        }
        Ok(config)
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

/// The values of whole blocks, from the `first` one on.
fn values(source: &mut dyn ReadSeek, tensor: &Tensor, first: usize, count: usize) -> Result<Vec<f32>> {
    let (block, size) = (tensor.dtype.block_size(), tensor.dtype.type_size());
    // In words of four bytes, as blocks that hold fp32 numbers have to lie.
    let mut words = vec![0u32; (count / block * size).div_ceil(4)];
    let bytes = &mut bytemuck::cast_slice_mut::<u32, u8>(&mut words)[..count / block * size];
    source.seek(SeekFrom::Start(tensor.start + (first / block * size) as u64))?;
    source.read_exact(bytes)?;
    match tensor.dtype.from_data(Cow::Borrowed(bytes)).dequantize(count)? {
        CpuStorage::F32(values) => Ok(values),
        _ => bail!("values of type {} were widened to no fp32", header::name_of(tensor.dtype)),
    }
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

    fn read(&mut self, name: &str, sink: &mut dyn FnMut(usize, &[f32]) -> Result<()>) -> Result<()> {
        let tensor = self.describe(name)?;
        let (total, width) = (tensor.shape.iter().product::<usize>(), tensor.shape.last().copied().unwrap_or(1));
        // Whole rows, and whole heads where the rows of a head change places: so no block is cut.
        let unit = width * tensor.turned.unwrap_or(1);
        let piece = unit * (PIECE / unit.max(1)).max(1);
        ensure!(total.is_multiple_of(unit.max(1)), "the rows of {name} are no whole heads");
        let tensor = &self.tensors[name];
        for first in (0..total).step_by(piece.max(1)) {
            let read = values(&mut *self.source, tensor, first, piece.min(total - first));
            let read = read.with_context(|| format!("cannot read {name} of {}", self.name))?;
            match tensor.turned {
                Some(rows) => sink(first, &names::in_halves(&read, rows, width))?,
                None => sink(first, &read)?,
            }
        }
        Ok(())
    }
}
