//! The shapes of the models that are measured: by name, or size by size.

use anyhow::Result;
use serde_json::json;

use crate::model::ModelConfig;
use crate::model::files::folder::read_config;

/// A shape by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Name {
    /// 883,000 weights: the job of the comparisons with other trainers.
    Common,
    /// SmolLM2-135M's.
    #[value(name = "smollm2-135m")]
    SmolLm2,
    /// Qwen2.5-0.5B's.
    #[value(name = "qwen2.5-0.5b")]
    Qwen25,
}

/// Arguments that say which shape.
#[derive(Debug, clap::Args)]
pub(super) struct ShapeArgs {
    /// The model's shape; the sizes below change it.
    #[arg(long, value_enum, default_value_t = Name::Common)]
    shape: Name,
    /// Width of the residual stream.
    #[arg(long)]
    d: Option<usize>,
    /// Layers.
    #[arg(long)]
    layers: Option<usize>,
    /// Query heads.
    #[arg(long)]
    heads: Option<usize>,
    /// Key and value heads; as many as query heads where only those are given.
    #[arg(long)]
    kv_heads: Option<usize>,
    /// Width of the feed-forward layer.
    #[arg(long)]
    ffn: Option<usize>,
    /// Size of the vocabulary.
    #[arg(long)]
    vocab: Option<usize>,
}

/// What of a decoder decides its speed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    architecture: &'static str,
    pub(super) d: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    pub(super) ffn: usize,
    pub(super) vocab: usize,
}

impl ShapeArgs {
    /// The shape that they say.
    pub(super) fn shape(&self) -> Shape {
        let (architecture, [d, layers, heads, kv_heads, ffn, vocab]) = match self.shape {
            Name::Common => ("Qwen2ForCausalLM", [128, 4, 4, 4, 384, 64]),
            Name::SmolLm2 => ("LlamaForCausalLM", [576, 30, 9, 3, 1536, 49_152]),
            Name::Qwen25 => ("Qwen2ForCausalLM", [896, 24, 14, 2, 4864, 151_936]),
        };
        Shape {
            architecture,
            d: self.d.unwrap_or(d),
            layers: self.layers.unwrap_or(layers),
            heads: self.heads.unwrap_or(heads),
            kv_heads: self.kv_heads.or(self.heads).unwrap_or(kv_heads),
            ffn: self.ffn.unwrap_or(ffn),
            vocab: self.vocab.unwrap_or(vocab),
        }
    }
}

impl Shape {
    /// Its config, with a context of so many tokens.
    pub(super) fn config(&self, context: usize) -> Result<ModelConfig> {
        let config = json!({
            "architectures": [self.architecture], "vocab_size": self.vocab, "hidden_size": self.d,
            "intermediate_size": self.ffn, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "max_position_embeddings": context, "rms_norm_eps": 1e-6,
            "tie_word_embeddings": true,
        });
        read_config(config.to_string().as_bytes())
    }

    /// Weights that a token is multiplied with.
    pub(super) fn products(&self) -> usize {
        let Self { d, layers, heads, kv_heads, ffn, vocab, .. } = *self;
        layers * (2 * d * d + 2 * d * d * kv_heads / heads + 3 * d * ffn) + vocab * d
    }
}
