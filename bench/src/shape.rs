//! The shapes that are measured, and jobs of them.

use anyhow::Result;
use serde_json::{Value, json};

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
    /// Four of the 27 layers of DeepSeek-V2-Lite, three of 64 experts each and all with latent attention.
    #[value(name = "deepseek-v2-lite-4-layers")]
    DeepseekLite,
    /// Qwen3.5-0.8B's, three delta nets to a layer that attends.
    #[value(name = "qwen3.5-0.8b")]
    Qwen35,
    /// One so small that a processor runs the kernels: for trying the command out.
    Tiny,
    /// The same with experts.
    TinyExperts,
    /// The same with experts and latent attention.
    TinyLatent,
    /// The same with delta nets.
    TinyDelta,
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
            Self::DeepseekLite => [2048, 10_944, 4, 102_400],
            Self::Qwen35 => [1024, 3584, 24, 248_320],
            Self::Tiny | Self::TinyExperts | Self::TinyLatent => [64, 96, 2, 512],
            Self::TinyDelta => [64, 96, 4, 512],
        };
        let Heads { query, key_value, size, .. } = self.heads();
        let mut config = json!({
            "architectures": ["Qwen3ForCausalLM"], "vocab_size": vocab, "hidden_size": hidden,
            "intermediate_size": intermediate, "num_hidden_layers": layers, "num_attention_heads": query,
            "num_key_value_heads": key_value, "head_dim": size, "max_position_embeddings": tokens + 1,
            "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": true,
        });
        if let (Value::Object(all), Value::Object(own)) = (&mut config, self.own()) {
            all.extend(own);
        }
        read_config(config.to_string().as_bytes())
    }

    /// What its config has beside what all have.
    fn own(self) -> Value {
        let deepseek =
            |rank: usize, [plain, rotated, value]: [usize; 3], experts: usize, active: usize, width: usize| {
                json!({
                    "architectures": ["DeepseekV2ForCausalLM"], "tie_word_embeddings": false, "kv_lora_rank": rank,
                    "q_lora_rank": null, "qk_nope_head_dim": plain, "qk_rope_head_dim": rotated, "v_head_dim": value,
                    "n_routed_experts": experts, "num_experts_per_tok": active, "moe_intermediate_size": width,
                    "n_shared_experts": 2, "first_k_dense_replace": 1, "topk_method": "greedy",
                })
            };
        let delta = |heads: usize, size: usize| {
            json!({
                "architectures": ["Qwen3_5ForCausalLM"], "full_attention_interval": 4,
                "linear_num_key_heads": heads, "linear_num_value_heads": heads, "linear_key_head_dim": size,
                "linear_value_head_dim": size, "partial_rotary_factor": 0.25,
            })
        };
        let olmoe = |experts: usize, active: usize| {
            json!({
                "architectures": ["OlmoeForCausalLM"], "tie_word_embeddings": false, "num_experts": experts,
                "num_experts_per_tok": active,
            })
        };
        match self {
            Self::Qwen06 | Self::Qwen4 | Self::Tiny => json!({}),
            Self::Olmoe => olmoe(64, 8),
            Self::TinyExperts => olmoe(4, 2),
            Self::DeepseekLite => deepseek(512, [128, 64, 128], 64, 6, 1408),
            Self::TinyLatent => deepseek(32, [16, 8, 16], 4, 2, 32),
            Self::Qwen35 => delta(16, 128),
            Self::TinyDelta => delta(4, 16),
        }
    }

    /// The heads of its layers that attend, as the config has them.
    pub(crate) fn heads(self) -> Heads {
        match self {
            Self::Qwen06 => Heads::alike(16, 8, 128),
            Self::Qwen4 => Heads::alike(32, 8, 128),
            Self::Olmoe | Self::DeepseekLite => Heads::alike(16, 16, 128),
            Self::Qwen35 => Heads::alike(8, 2, 256),
            Self::Tiny | Self::TinyExperts => Heads::alike(2, 1, 32),
            Self::TinyLatent => Heads::alike(2, 2, 32),
            Self::TinyDelta => Heads::alike(2, 1, 32),
        }
    }

    /// Side of the square matrices whose product is the card's rate.
    pub(crate) fn product(self) -> usize {
        match self {
            Self::Tiny | Self::TinyExperts | Self::TinyLatent | Self::TinyDelta => 64,
            _ => 8192,
        }
    }
}
