//! A model as a folder of `config.json`, `tokenizer.json` and `model.safetensors`, read and written.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer;

use super::config::ModelConfig;
use super::weights::{Layout, Weights};

/// The type of number a model is written in. Computation is in fp32 on a CPU whatever the file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SaveDtype {
    /// Four bytes, exact.
    #[default]
    F32,
    /// Two bytes, rounded to 8 bits of mantissa.
    Bf16,
}

/// A model as it lies in a folder.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    /// Shape.
    pub config: ModelConfig,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// Values.
    pub weights: Weights,
}

impl ModelFolder {
    /// Reads a folder.
    pub fn read(path: &Path) -> Result<Self> {
        let file = |name: &str| {
            let file = path.join(name);
            std::fs::read(&file).with_context(|| {
                format!(
                    "cannot read {}: a model folder holds config.json, tokenizer.json and model.safetensors",
                    file.display()
                )
            })
        };
        Self::parse(&file("config.json")?, &file("tokenizer.json")?, &file("model.safetensors")?)
            .with_context(|| format!("model folder {}", path.display()))
    }

    /// The same from the files' contents.
    pub fn parse(config: &[u8], tokenizer: &[u8], weights: &[u8]) -> Result<Self> {
        let config = read_config(config)?;
        let tokenizer = read_tokenizer(tokenizer, &config)?;
        let weights = read_weights(weights, Layout::new(&config, config.family()?))?;
        Ok(Self { config, tokenizer, weights })
    }

    /// Writes the folder's three files; the folder exists.
    pub fn write(&self, path: &Path, dtype: SaveDtype) -> Result<()> {
        let write = |name: &str, bytes: &[u8]| {
            let file = path.join(name);
            std::fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))
        };
        write("config.json", &serde_json::to_vec_pretty(&self.config)?)?;
        let tokenizer = self.tokenizer.to_string(true).map_err(|e| anyhow::anyhow!("tokenizer: {e}"))?;
        write("tokenizer.json", tokenizer.as_bytes())?;
        write("model.safetensors", &weights_bytes(&self.weights, dtype)?)
    }
}

/// Parses and validates `config.json`.
pub fn read_config(bytes: &[u8]) -> Result<ModelConfig> {
    let config: ModelConfig = serde_json::from_slice(bytes).context("config.json")?;
    config.validate().context("config.json")?;
    Ok(config)
}

/// Parses `tokenizer.json` and checks that its ids have rows in the embedding.
pub fn read_tokenizer(bytes: &[u8], config: &ModelConfig) -> Result<Tokenizer> {
    let tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| anyhow::anyhow!("tokenizer.json: {e}"))?;
    let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
    ensure!(
        (largest as usize) < config.vocab_size,
        "tokenizer.json has token id {largest}, but config.json says vocab_size = {}: they belong to different models",
        config.vocab_size
    );
    Ok(tokenizer)
}

fn read_weights(bytes: &[u8], layout: Layout) -> Result<Weights> {
    let file = SafeTensors::deserialize(bytes).context("model.safetensors is damaged or cut short")?;
    let mut values = vec![0f32; layout.len()];
    for entry in &layout.entries {
        let Ok(tensor) = file.tensor(&entry.name) else { bail!("model.safetensors has no tensor {}", entry.name) };
        ensure!(
            tensor.shape() == entry.shape,
            "tensor {} has shape {:?}, but config.json asks for {:?}",
            entry.name,
            tensor.shape(),
            entry.shape
        );
        decode(&tensor, &mut values[entry.range.clone()]).with_context(|| format!("tensor {}", entry.name))?;
    }
    let known: std::collections::HashSet<&str> = layout.entries.iter().map(|e| e.name.as_str()).collect();
    if let Some(extra) = file.names().into_iter().find(|name| !known.contains(name)) {
        bail!("model.safetensors has a tensor {extra} that config.json has no place for");
    }
    Ok(Weights { layout, values })
}

fn decode(tensor: &TensorView, out: &mut [f32]) -> Result<()> {
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::F32 => {
            let (words, _) = data.as_chunks::<4>();
            out.iter_mut().zip(words).for_each(|(x, bytes)| *x = f32::from_le_bytes(*bytes));
        }
        Dtype::BF16 => {
            let (words, _) = data.as_chunks::<2>();
            let widen = |bytes: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            out.iter_mut().zip(words).for_each(|(x, bytes)| *x = widen(bytes));
        }
        Dtype::F16 => {
            let (words, _) = data.as_chunks::<2>();
            out.iter_mut().zip(words).for_each(|(x, bytes)| *x = half::f16::from_le_bytes(*bytes).to_f32());
        }
        other => bail!("type {other:?} is not supported: F32, BF16 and F16 are"),
    }
    Ok(())
}

/// The bytes of `model.safetensors`.
pub fn weights_bytes(weights: &Weights, dtype: SaveDtype) -> Result<Vec<u8>> {
    let encode = |values: &[f32]| -> Vec<u8> {
        match dtype {
            SaveDtype::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            SaveDtype::Bf16 => values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect(),
        }
    };
    let kind = match dtype {
        SaveDtype::F32 => Dtype::F32,
        SaveDtype::Bf16 => Dtype::BF16,
    };
    let data: Vec<Vec<u8>> = weights.layout.entries.iter().map(|e| encode(&weights.values[e.range.clone()])).collect();
    let views = weights
        .layout
        .entries
        .iter()
        .zip(&data)
        .map(|(entry, data)| Ok((entry.name.clone(), TensorView::new(kind, entry.shape.clone(), data)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(safetensors::serialize(views, Some(metadata))?)
}
