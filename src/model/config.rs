//! `config.json`: the shape of a model, in the words of Hugging Face.

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::ops::attention::Heads;

/// The architectures the decoder speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// No biases, no norm of queries and keys.
    Llama,
    /// Biases on queries, keys and values.
    Qwen2,
    /// A norm over each head of the queries and keys.
    Qwen3,
}

const ARCHITECTURES: [(&str, Family); 3] =
    [("LlamaForCausalLM", Family::Llama), ("Qwen2ForCausalLM", Family::Qwen2), ("Qwen3ForCausalLM", Family::Qwen3)];

/// The fields of `config.json` that shape the computation. Others are carried along in `other`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// One of `LlamaForCausalLM`, `Qwen2ForCausalLM`, `Qwen3ForCausalLM`.
    pub architectures: Vec<String>,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; as many as query heads when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_key_value_heads: Option<usize>,
    /// Values a head; `hidden_size / num_attention_heads` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Longest sequence, prompt and completion together.
    pub max_position_embeddings: usize,
    /// Added under the root of the norms.
    pub rms_norm_eps: f32,
    /// Base of the rotary angles.
    #[serde(default = "default_theta")]
    pub rope_theta: f64,
    /// Whether the embedding is also the output matrix.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Token that ends a completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<u32>,
    /// Everything else in the file, kept when the model is saved.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

fn default_theta() -> f64 {
    10_000.0
}

impl ModelConfig {
    /// Which family the architecture names; unknown ones are refused by name.
    pub fn family(&self) -> Result<Family> {
        let name = self.architectures.first().map_or("", String::as_str);
        match ARCHITECTURES.iter().find(|(known, _)| *known == name) {
            Some((_, family)) => Ok(*family),
            None => {
                bail!("architecture \"{name}\" is not known; known are {}", ARCHITECTURES.map(|(n, _)| n).join(", "))
            }
        }
    }

    /// The sizes of the attention layers.
    pub fn heads(&self) -> Heads {
        Heads {
            query: self.num_attention_heads,
            key_value: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            size: self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1)),
        }
    }

    /// Refuses shapes that cannot be computed, naming the value.
    pub fn validate(&self) -> Result<()> {
        self.family()?;
        let heads = self.heads();
        ensure!(heads.query > 0 && heads.key_value > 0, "a model needs at least one attention head");
        ensure!(
            heads.query.is_multiple_of(heads.key_value),
            "num_key_value_heads = {} does not divide num_attention_heads = {}",
            heads.key_value,
            heads.query
        );
        ensure!(
            heads.size >= 2 && heads.size.is_multiple_of(2),
            "head size {} cannot be used: rope turns pairs, so an even number from 2 on is needed",
            heads.size
        );
        for (key, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            ensure!(value > 0, "{key} = 0: it must be at least 1");
        }
        for key in ["rope_scaling", "sliding_window"] {
            let set = self.other.get(key).is_some_and(|v| !v.is_null());
            let unused = key == "sliding_window" && self.other.get("use_sliding_window") == Some(&false.into());
            ensure!(!set || unused, "config.json sets {key}, which is not supported yet: set it to null");
        }
        Ok(())
    }
}
