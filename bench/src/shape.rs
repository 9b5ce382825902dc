//! The shapes that are measured, and jobs of them.

use anyhow::Result;
use serde_json::json;

use reckon::model::ModelConfig;
use reckon::model::files::folder::read_config;
use reckon::ops::attention::Heads;

/// The shape of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// Qwen3-0.6B's.
    #[value(name = "qwen3-0.6b")]
    Qwen06,
    /// Qwen3-4B's.
    #[value(name = "qwen3-4b")]
    Qwen4,
    /// Four of the sixteen layers of OLMoE-1B-7B, of 64 experts each.
    #[value(name = "olmoe-4-layers")]
    Olmoe,
    /// One so small that a processor runs the kernels: for trying the command out.
    Tiny,
    /// The same with experts.
    TinyExperts,
}

impl Shape {
    /// Its name on the command line.
    pub(crate) fn name(self) -> Option<String> {
        clap::ValueEnum::to_possible_value(&self).map(|name| name.get_name().to_owned())
    }

    /// Its config, with a context of `tokens` and one more.
    pub(crate) fn config(self, tokens: usize) -> Result<ModelConfig> {
        let [hidden, intermediate, layers, vocab] = match self {
            Self::Qwen06 => [1024, 3072, 28, 151_936],
            Self::Qwen4 => [2560, 9728, 36, 151_936],
            Self::Olmoe => [2048, 1024, 4, 50_304],
            Self::Tiny | Self::TinyExperts => [64, 96, 2, 512],
        };
        let [experts, active] = match self {
            Self::Olmoe => [64, 8],
            Self::TinyExperts => [4, 2],
            Self::Qwen06 | Self::Qwen4 | Self::Tiny => [0, 0],
        };
        let architecture = if experts > 0 { "OlmoeForCausalLM" } else { "Qwen3ForCausalLM" };
        let Heads { query, key_value, size, .. } = self.heads();
        let config = json!({
            "architectures": [architecture], "vocab_size": vocab, "hidden_size": hidden,
            "intermediate_size": intermediate, "num_hidden_layers": layers, "num_attention_heads": query,
            "num_key_value_heads": key_value, "head_dim": size, "max_position_embeddings": tokens + 1,
            "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": experts == 0,
            "num_experts": experts, "num_experts_per_tok": active,
        });
        read_config(config.to_string().as_bytes())
    }

    pub(crate) fn heads(self) -> Heads {
        match self {
            Self::Qwen06 => Heads::alike(16, 8, 128),
            Self::Qwen4 => Heads::alike(32, 8, 128),
            Self::Olmoe => Heads::alike(16, 16, 128),
            Self::Tiny | Self::TinyExperts => Heads::alike(2, 1, 32),
        }
    }

    /// Side of the square matrices whose product is the card's rate.
    pub(crate) fn product(self) -> usize {
        if matches!(self, Self::Tiny | Self::TinyExperts) { 64 } else { 8192 }
    }
}
