//! The shapes of the models that are measured: by name, or size by size.

use anyhow::Result;
use serde_json::{Value, json};

use super::super::arguments::whole;
use crate::model::files::folder::read_config;
use crate::model::layout::{LayerLayout, Mlp};
use crate::model::{Layout, ModelConfig};

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
    /// Qwen3.5-0.8B's: three delta nets to one layer of attention.
    #[value(name = "qwen3.5-0.8b")]
    Qwen35,
    /// Qwen3-MoE's at `common`'s sizes: 9 experts of a third of the width, 3 for each token.
    Mixture,
    /// DeepSeek-V3's at `common`'s sizes: 8 experts of a third of the width, 2 for each token and one for all, latents.
    Latent,
}

/// Arguments that say which shape.
#[derive(Debug, clap::Args)]
pub(super) struct ShapeArgs {
    /// The model's shape; the sizes below change it.
    #[arg(long, value_enum, default_value_t = Name::Common)]
    shape: Name,
    /// Width of the residual stream.
    #[arg(long, value_parser = whole::<usize>(1))]
    d: Option<usize>,
    /// Layers.
    #[arg(long, value_parser = whole::<usize>(1))]
    layers: Option<usize>,
    /// Query heads.
    #[arg(long, value_parser = whole::<usize>(1))]
    heads: Option<usize>,
    /// Key and value heads; as many as query heads where only those are given.
    #[arg(long, value_parser = whole::<usize>(1))]
    kv_heads: Option<usize>,
    /// Width of the feed-forward layer.
    #[arg(long, value_parser = whole::<usize>(1))]
    ffn: Option<usize>,
    /// Size of the vocabulary.
    #[arg(long, value_parser = whole::<usize>(1))]
    vocab: Option<usize>,
}

/// What of a decoder decides its speed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    name: Name,
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
        let [d, layers, heads, kv_heads, ffn, vocab] = match self.shape {
            Name::Common | Name::Mixture | Name::Latent => [128, 4, 4, 4, 384, 64],
            Name::SmolLm2 => [576, 30, 9, 3, 1536, 49_152],
            Name::Qwen25 => [896, 24, 14, 2, 4864, 151_936],
            Name::Qwen35 => [1024, 24, 8, 2, 3584, 248_320],
        };
        Shape {
            name: self.shape,
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
        let (architecture, more) = self.family();
        let mut config = json!({
            "architectures": [architecture], "vocab_size": self.vocab, "hidden_size": self.d,
            "intermediate_size": self.ffn, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "max_position_embeddings": context, "rms_norm_eps": 1e-6,
            "tie_word_embeddings": true,
        });
        if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
            config.extend(more);
        }
        read_config(config.to_string().as_bytes())
    }

    /// Its family, and what the config of one says beside sizes that all have. A token goes through as many weights of
    /// experts as of a dense layer.
    fn family(&self) -> (&'static str, Value) {
        match self.name {
            Name::Common | Name::Qwen25 => ("Qwen2ForCausalLM", json!({})),
            Name::SmolLm2 => ("LlamaForCausalLM", json!({})),
            Name::Qwen35 => (
                "Qwen3_5ForCausalLM",
                json!({
                    "head_dim": 256, "rope_theta": 1e7, "linear_num_key_heads": 16, "linear_num_value_heads": 16,
                    "linear_key_head_dim": 128, "linear_value_head_dim": 128,
                }),
            ),
            Name::Mixture => (
                "Qwen3MoeForCausalLM",
                json!({
                    "num_experts": 9, "num_experts_per_tok": 3, "moe_intermediate_size": self.ffn / 3,
                    "norm_topk_prob": true,
                }),
            ),
            Name::Latent => {
                let head = self.d / self.heads.max(1);
                let more = json!({
                    "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 4,
                    "topk_group": 2, "moe_intermediate_size": self.ffn / 3, "kv_lora_rank": 3 * head / 2,
                    "qk_nope_head_dim": 3 * head / 4, "qk_rope_head_dim": head / 2, "v_head_dim": head,
                });
                ("DeepseekV3ForCausalLM", more)
            }
        }
    }

    /// Weights that a token is multiplied with.
    pub(super) fn products(&self) -> Result<usize> {
        let config = self.config(1)?;
        let (layout, active) = (Layout::of(&config)?, config.experts()?.map_or(0, |experts| experts.router.active));
        let layer = |layer: &LayerLayout| {
            let all: usize = layer.matrices().iter().map(|matrix| matrix.range.len()).sum();
            let Mlp::Experts(mlp) = &layer.mlp else { return all };
            let others = mlp.experts[active..].iter();
            all - others.map(|other| other.gate_up.range.len() + other.down.range.len()).sum::<usize>()
        };
        Ok(layout.layers.iter().map(layer).sum::<usize>() + layout.lm_head.range.len())
    }
}
