//! A model as a Hugging Face folder, read and written: shape, weights, tokenizer, and the small files beside them, which
//! are carried along byte for byte so that what is saved loads wherever the original did. A GGUF file is read as the
//! folder that it could have been made from.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokenizers::Tokenizer;

use super::requantized::{BaseType, Requantized};
use super::safetensors::{self, Reader, Shards};
use super::untied::Untied;
use super::{Load, Source, TensorFile, check, gguf};
use crate::disk::read_text;
use crate::model::base::{Base, stored_in};
use crate::model::config::{Family, ModelConfig, token_ids};
use crate::model::dtype::SaveDtype;
use crate::model::layout::Layout;
use crate::model::lora::Adapter;
use crate::model::parameters::Parameters;
use crate::model::text_part;
use crate::model::weights::Weights;
use crate::ops::linear::Stored;
use crate::output::note;

/// Files that a folder may hold beside its weights; whichever are there are copied when the model is saved.
const COMPANIONS: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    GENERATION,
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];

/// Whether a model folder may hold a file of this name beside its weights.
pub fn is_small_file(name: &str) -> bool {
    name == "config.json" || COMPANIONS.contains(&name)
}

/// Everything of a model folder that is not `config.json` or a weight.
#[derive(Debug, Clone, Default)]
pub struct Companions {
    /// Name and content of each file.
    pub files: Vec<(String, Vec<u8>)>,
    /// Which file held which tensors; empty for a model that was not read from files.
    pub shards: Shards,
    /// The type most of the weights were stored in.
    pub dtype: SaveDtype,
}

impl Companions {
    /// Those of a new model, whose tokenizer is in `tokenizer`.
    pub fn new(tokenizer: &[u8]) -> Self {
        Self { files: vec![("tokenizer.json".to_owned(), tokenizer.to_vec())], ..Self::default() }
    }

    /// Reads those that a folder holds, or makes them of what a GGUF file says.
    pub fn read(path: &Path) -> Result<Self> {
        if gguf::is_named(path) {
            return Ok(Self { files: gguf::Model::open(path)?.files, ..Self::default() });
        }
        let mut files = Vec::new();
        for name in COMPANIONS.iter().filter(|name| path.join(name).exists()) {
            let content = fs::read(path.join(name)).with_context(|| format!("cannot read {name}"))?;
            files.push(((*name).to_owned(), content));
        }
        Ok(Self { files, ..Self::default() })
    }

    /// A file's content, where there is such a file.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.iter().find(|(known, _)| known == name).map(|(_, content)| content.as_slice())
    }

    /// Makes tokens end completions beside those of `config`, also in `generation_config.json`, which keeps every byte
    /// where it names them all.
    pub fn end_with(&mut self, config: &mut ModelConfig, tokens: impl IntoIterator<Item = u32>) -> Result<()> {
        for token in tokens {
            if !config.eos_token_id.contains(&token) {
                config.eos_token_id.push(token);
            }
            let mut generation = self.generation()?.unwrap_or_default();
            if generation.eos_token_id != config.eos_token_id {
                generation.eos_token_id.clone_from(&config.eos_token_id);
                self.files.retain(|(name, _)| name != GENERATION);
                self.files.push((GENERATION.to_owned(), serde_json::to_vec_pretty(&generation)?));
            }
        }
        Ok(())
    }

    /// The tokenizer of a model, whose config takes the end tokens that stand here.
    fn tokenizer(&self, config: &mut ModelConfig) -> Result<Tokenizer> {
        let tokenizer = self.file("tokenizer.json").context("there is no tokenizer.json in it")?;
        let tokenizer = read_tokenizer(tokenizer, config)?;
        let end_tokens = self.end_tokens()?;
        if !end_tokens.is_empty() {
            config.eos_token_id = end_tokens;
        }
        let stray = config.eos_token_id.iter().find(|id| **id as usize >= config.vocab_size);
        ensure!(stray.is_none(), "eos_token_id {stray:?} is beyond vocab_size = {}", config.vocab_size);
        Ok(tokenizer)
    }

    /// The end tokens that `generation_config.json` names.
    fn end_tokens(&self) -> Result<Vec<u32>> {
        Ok(self.generation()?.unwrap_or_default().eos_token_id)
    }

    fn generation(&self) -> Result<Option<Generation>> {
        self.file(GENERATION).map(|bytes| serde_json::from_slice(bytes).context(GENERATION)).transpose()
    }
}

/// How a model is meant to be sampled from.
const GENERATION: &str = "generation_config.json";

/// What is read of that file; the rest is carried along.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Generation {
    #[serde(default, with = "token_ids", skip_serializing_if = "Vec::is_empty")]
    eos_token_id: Vec<u32>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// A model as it lies in a folder.
#[derive(Debug, Clone)]
pub struct ModelFolder<W = Weights> {
    /// Shape.
    pub config: ModelConfig,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// The files beside them.
    pub companions: Companions,
    /// Values.
    pub weights: W,
}

impl ModelFolder<Weights> {
    /// Reads a folder, its weights as fp32 that can learn.
    pub fn read(folder: &Path) -> Result<Self> {
        Self::read_as(folder, None)
    }

    /// The same from the contents of `config.json`, `tokenizer.json` and `model.safetensors`.
    pub fn parse(config: &[u8], tokenizer: &[u8], weights: &[u8]) -> Result<Self> {
        Self::parse_as(config, tokenizer, weights, None)
    }
}

impl ModelFolder<Base> {
    /// Reads a folder, its weights as they are in it, which can not learn.
    pub fn read_frozen(folder: &Path) -> Result<Self> {
        Self::read_as(folder, None)
    }

    /// The same with its matrices kept in another type.
    pub fn read_requantized(folder: &Path, base: Option<BaseType>) -> Result<Self> {
        Self::read_as(folder, base)
    }

    /// The same from the contents of its files.
    pub fn parse_frozen(config: &[u8], tokenizer: &[u8], weights: &[u8], base: Option<BaseType>) -> Result<Self> {
        Self::parse_as(config, tokenizer, weights, base)
    }

    /// The model with an adapter, made for its base.
    pub fn adapted(self, adapter: impl FnOnce(&Base) -> Result<Adapter>) -> Result<ModelFolder<Parameters>> {
        let Self { config, tokenizer, companions, weights: base } = self;
        let adapter = adapter(&base)?;
        Ok(ModelFolder { config, tokenizer, companions, weights: Parameters::Frozen(base, Some(adapter)) })
    }
}

impl<W: Into<Parameters>> ModelFolder<W> {
    /// The same as values of any kind.
    pub fn into_parameters(self) -> ModelFolder<Parameters> {
        let Self { config, tokenizer, companions, weights } = self;
        ModelFolder { config, tokenizer, companions, weights: weights.into() }
    }
}

impl ModelFolder<Parameters> {
    /// Writes a model folder into `folder`, which exists, an adapter merged into its base.
    pub fn save_merged(&self, folder: &Path, dtype: SaveDtype) -> Result<()> {
        write(folder, &self.config, &self.tokenizer, &self.companions, &self.weights, dtype)
    }

    /// The same with the output matrix of a tied model as a tensor of its own.
    pub fn save_untied(&self, folder: &Path, dtype: SaveDtype) -> Result<()> {
        let (config, source) = Untied::of(&self.config, &self.weights)?;
        write(folder, &config, &self.tokenizer, &self.companions, &source, dtype)
    }

    /// Writes a GGUF file that calls the model `name`, an adapter merged into its base.
    pub fn save_gguf(&self, out: &mut impl Write, name: &str, mix: gguf::Mix, threads: usize) -> Result<()> {
        let Self { config, tokenizer, companions, weights } = self;
        gguf::Written { name, config, tokenizer, files: &companions.files, weights, threads }.write(mix, out)
    }
}

impl<W> ModelFolder<W> {
    /// Refuses a model that does not read as this one does: of another shape, or with other tokens for a text.
    pub fn compare_with<V>(&self, read: &ModelFolder<V>) -> Result<()> {
        let layout = |config: &ModelConfig| Ok::<_, anyhow::Error>(Layout::of(config)?.entries);
        ensure!(layout(&read.config)? == layout(&self.config)?, "its tensors are not those that were written");
        same_tokens(&read.tokenizer, &self.tokenizer)
    }
}

impl<W: Load> ModelFolder<W> {
    fn read_as(path: &Path, base: Option<BaseType>) -> Result<Self> {
        if gguf::is_named(path) {
            let gguf::Model { config, files, mut weights } = gguf::Model::open(path)?;
            let companions = Companions { files, ..Companions::default() };
            return Self::assemble(config, companions, &mut weights, base)
                .with_context(|| format!("GGUF file {}", path.display()));
        }
        let read = || {
            let config = fs::read(path.join("config.json")).context(
                "cannot read config.json: a model folder holds it beside tokenizer.json and safetensors files",
            )?;
            Self::of_reader(&config, Companions::read(path)?, Reader::open(path)?, base)
        };
        read().with_context(|| format!("model folder {}", path.display()))
    }

    fn parse_as(config: &[u8], tokenizer: &[u8], weights: &[u8], base: Option<BaseType>) -> Result<Self> {
        Self::of_reader(config, Companions::new(tokenizer), Reader::from_bytes(weights)?, base)
    }

    fn of_reader(
        config: &[u8],
        mut companions: Companions,
        mut reader: Reader,
        base: Option<BaseType>,
    ) -> Result<Self> {
        companions.shards = reader.shards();
        Self::assemble(read_config(config)?, companions, &mut reader, base)
    }

    fn assemble(
        mut config: ModelConfig,
        mut companions: Companions,
        file: &mut dyn TensorFile,
        base: Option<BaseType>,
    ) -> Result<Self> {
        let tokenizer = companions.tokenizer(&mut config)?;
        let layout = Layout::of(&config)?;
        check(file, &layout.entries, &|name| is_ignored(name, &config))?;
        if file.names().into_iter().any(|name| text_part::is_beside(name) || name.starts_with("mtp.")) {
            note!("of this model the text part is read: not what sees images, nor layers that predict further tokens");
        }
        companions.dtype = file.dtype(&layout.entries[0].name)?;
        let weights = match base {
            Some(base) => W::load(&config, layout, &mut Requantized { file, base })?,
            None => W::load(&config, layout, file)?,
        };
        Ok(Self { config, tokenizer, companions, weights })
    }
}

/// What a folder holds beside its weights, whatever family the model is of, or what a GGUF file of a family that is not
/// trained says. The config is not checked.
pub fn read_beside(folder: &Path) -> Result<ModelFolder<()>> {
    if gguf::is_named(folder) {
        let gguf::Other { mut config, files, .. } = gguf::Other::open(folder)?;
        let companions = Companions { files, ..Companions::default() };
        let tokenizer = companions.tokenizer(&mut config)?;
        return Ok(ModelFolder { config, tokenizer, companions, weights: () });
    }
    let read = || -> Result<ModelFolder<()>> {
        let mut config: ModelConfig =
            serde_json::from_slice(&fs::read(folder.join("config.json"))?).context("config.json")?;
        let companions = Companions::read(folder)?;
        let tokenizer = companions.tokenizer(&mut config)?;
        Ok(ModelFolder { config, tokenizer, companions, weights: () })
    };
    read().with_context(|| format!("model folder {}", folder.display()))
}

/// The shape of the model in a folder or a GGUF file, without its weights.
pub fn read_shape(path: &Path) -> Result<ModelConfig> {
    if gguf::is_named(path) {
        return Ok(gguf::Model::open(path)?.config);
    }
    read_config(read_text(&path.join("config.json"))?.as_bytes())
}

/// Bytes that the weights in a folder or a GGUF file take as a frozen base on a CPU, for which the weights themselves are
/// not read. Where there are none yet, `dtype` is what they are stored in.
pub fn base_bytes(path: &Path, layout: &Layout, base: Option<BaseType>, dtype: SaveDtype) -> Result<usize> {
    let mut found: Option<Box<dyn TensorFile>> = None;
    if gguf::is_named(path) {
        found = Some(Box::new(gguf::Model::open(path)?.weights));
    } else if let Ok(reader) = Reader::open(path) {
        found = Some(Box::new(reader));
    }
    Base::bytes_in(layout, |entry| {
        let asked = base.and_then(|base| base.of(&entry.name, *entry.shape.last()?));
        match (asked, &found) {
            (Some(stored), _) => Ok(stored),
            (None, Some(file)) => stored_in(&**file, entry),
            (None, None) => Ok(if dtype == SaveDtype::Bf16 { Stored::Bf16 } else { Stored::F32 }),
        }
    })
}

/// Tensors that some files hold and no computation needs: a tied output matrix, tables of rotary angles, layers that
/// predict further tokens, and what sees images.
fn is_ignored(name: &str, config: &ModelConfig) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
        || (config.tie_word_embeddings && name == "lm_head.weight")
        || config.is_beyond(name)
        || (text_part::is_beside(name) && config.family().is_ok_and(Family::has_delta_nets))
}

/// Writes a model folder into `folder`, which exists, and reads it back: every weight is compared, and the shape and
/// the tokenizer must parse to what they were.
pub fn write(
    folder: &Path,
    config: &ModelConfig,
    tokenizer: &Tokenizer,
    companions: &Companions,
    weights: &dyn Source,
    dtype: SaveDtype,
) -> Result<()> {
    let write = |name: &str, bytes: &[u8]| {
        fs::write(folder.join(name), bytes).with_context(|| format!("cannot write {}", folder.join(name).display()))
    };
    let config = config.stored_as(dtype);
    write("config.json", &serde_json::to_vec_pretty(&config)?)?;
    // Never written from the tokenizer itself: the file that it was read from keeps every byte.
    companions.file("tokenizer.json").context("this model was put together without the file of its tokenizer")?;
    companions.files.iter().try_for_each(|(name, content)| write(name, content))?;
    safetensors::write(folder, weights, &companions.shards, dtype)?;
    probe(folder, &config, tokenizer, weights, dtype)
        .with_context(|| format!("the model saved in {} does not read back", folder.display()))
}

fn probe(
    folder: &Path,
    config: &ModelConfig,
    tokenizer: &Tokenizer,
    weights: &dyn Source,
    dtype: SaveDtype,
) -> Result<()> {
    safetensors::verify(&mut Reader::open(folder)?, weights, dtype)?;
    let read = read_config(&fs::read(folder.join("config.json"))?)?;
    ensure!(&read == config, "config.json reads differently");
    let read = read_tokenizer(&fs::read(folder.join("tokenizer.json"))?, config)?;
    same_tokens(&read, tokenizer)
}

/// Refuses a tokenizer that reads a text differently than the one that was written.
fn same_tokens(read: &Tokenizer, written: &Tokenizer) -> Result<()> {
    let ids =
        |t: &Tokenizer, text: &str| t.encode(text, false).map(|e| e.get_ids().to_vec()).map_err(|e| anyhow!("{e}"));
    for text in ["1 + 1 = 2, wait", "Don't  stop\n\n\tat 3,141.59 or naïve words: it's 日本!"] {
        ensure!(ids(read, text)? == ids(written, text)?, "its tokenizer reads {text:?} differently");
    }
    Ok(())
}

/// Parses and validates `config.json`.
pub fn read_config(bytes: &[u8]) -> Result<ModelConfig> {
    let keys: Map<String, Value> = serde_json::from_slice(bytes).context("config.json")?;
    let config: ModelConfig = serde_json::from_value(text_part::of_config(keys).into()).context("config.json")?;
    config.validate().context("config.json")?;
    Ok(config)
}

/// Parses `tokenizer.json`. By way of a text: reading bytes would compile the tokenizers crate's readers once more here.
pub fn parse_tokenizer(bytes: &[u8]) -> Result<Tokenizer> {
    std::str::from_utf8(bytes)?.parse().map_err(|e| anyhow!("{e}"))
}

/// Parses `tokenizer.json` and checks that its ids have rows in the embedding.
pub fn read_tokenizer(bytes: &[u8], config: &ModelConfig) -> Result<Tokenizer> {
    let tokenizer = parse_tokenizer(bytes).context("tokenizer.json")?;
    let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
    ensure!(
        (largest as usize) < config.vocab_size,
        "tokenizer.json has token id {largest}, but config.json says vocab_size = {}: they belong to different models",
        config.vocab_size
    );
    Ok(tokenizer)
}
