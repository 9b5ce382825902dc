//! Files of architectures that are sampled from and never trained: shape and small files as for the others, and the file as
//! candle takes it. What computes them is not known here.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::quantized::gguf_file::Content;
use serde_json::json;

use super::metadata::Metadata;
use super::{header, names, shape, vocabulary};
use crate::model::config::ModelConfig;

/// A model of one of them in a file.
pub struct Other {
    /// Its shape, with its architecture as `model_type`.
    pub config: ModelConfig,
    /// Name and content of the small files that a model folder would hold.
    pub files: Vec<(String, Vec<u8>)>,
    /// The header, as candle reads it.
    pub content: Content,
    /// The file, open.
    pub source: BufReader<File>,
}

/// Which of them a file is of, if it is of one.
pub fn sampled(path: &Path) -> Result<Option<&'static str>> {
    let name = header::architecture(&mut File::open(path)?)?;
    Ok(shape::SAMPLED.into_iter().find(|known| name.as_deref() == Some(known)))
}

impl Other {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(path).with_context(|| format!("GGUF file {}", path.display()))
    }

    fn read(path: &Path) -> Result<Self> {
        header::check(&mut File::open(path)?)?;
        let mut source = BufReader::new(File::open(path)?);
        let mut content = Content::read(&mut source)?;
        let metadata = Metadata(std::mem::take(&mut content.metadata));
        let embedding = content.tensor_infos.get(names::EMBEDDING);
        let embedding = embedding.with_context(|| format!("it has no tensor {}", names::EMBEDDING))?;
        let vocab = embedding.shape.dims()[0];
        let tied = !content.tensor_infos.contains_key(names::OUTPUT);
        let config = config(&metadata, vocab, tied)?;
        let files = vocabulary::files(&metadata, vocab)?;
        content.metadata = metadata.0;
        Ok(Self { config, files, content, source })
    }
}

/// What is asked of such a model's shape; the rest candle reads for itself.
fn config(metadata: &Metadata, vocab: usize, tied: bool) -> Result<ModelConfig> {
    let name = metadata.text("general.architecture")?.context("metadata general.architecture is missing")?;
    let key = |part: &str| format!("{name}.{part}");
    let required = |part: &str| metadata.required(&key(part));
    let context = required("context_length")?;
    ensure!(context <= shape::LONGEST_CONTEXT, "{name}.context_length = {context} is above {}", shape::LONGEST_CONTEXT);
    // candle attends to all that came before: beyond a window that would be wrong.
    let window = metadata.count(&key("attention.sliding_window"))?.filter(|window| *window > 0);
    let epsilon = key("attention.layer_norm_rms_epsilon");
    Ok(serde_json::from_value(json!({
        "model_type": name,
        "vocab_size": vocab,
        "hidden_size": required("embedding_length")?,
        "intermediate_size": required("feed_forward_length")?,
        "num_hidden_layers": required("block_count")?,
        "num_attention_heads": required("attention.head_count")?,
        "num_key_value_heads": metadata.count(&key("attention.head_count_kv"))?,
        "head_dim": metadata.count(&key("attention.key_length"))?,
        "max_position_embeddings": context.min(window.unwrap_or(context)),
        "rms_norm_eps": metadata.number(&epsilon)?.with_context(|| format!("metadata {epsilon} is missing"))?,
        "tie_word_embeddings": tied,
        "bos_token_id": metadata.count("tokenizer.ggml.bos_token_id")?,
        "eos_token_id": shape::ends(metadata)?,
    }))?)
}
