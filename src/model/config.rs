//! `config.json`: the shape of a model, in the words of Hugging Face.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ops::attention::Heads;

use super::delta::{self, DeltaShape};
use super::dtype::SaveDtype;
use super::experts::{self, Experts};
pub use super::family::Family;
use super::latent::{self, LatentShape};

/// How many layers behind the last one predict further tokens: DeepSeek's key, and Qwen's.
const FURTHER: [&str; 2] = ["num_nextn_predict_layers", "mtp_num_hidden_layers"];

/// The fields of `config.json` that shape the computation. Others are carried along in `other`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// The architecture, such as `LlamaForCausalLM`: one of [`Family`]'s. Conversions often leave it out; then
    /// `model_type` says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architectures: Option<Vec<String>>,
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
    /// Base of the rotary angles, where `rope_parameters` does not hold it; 10,000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// Whether the embedding is also the output matrix.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Tokens that end a completion, unless `generation_config.json` names others.
    #[serde(default, with = "token_ids", skip_serializing_if = "Vec::is_empty")]
    pub eos_token_id: Vec<u32>,
    /// Everything else in the file, kept when the model is saved.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Token ids as the files spell them: none, one, or a list.
pub(super) mod token_ids {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Spelling {
        One(u32),
        Many(Vec<u32>),
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u32>, D::Error> {
        Ok(match Option::<Spelling>::deserialize(from)? {
            Some(Spelling::Many(ids)) => ids,
            Some(Spelling::One(id)) => vec![id],
            None => Vec::new(),
        })
    }

    pub(crate) fn serialize<S: Serializer>(ids: &[u32], to: S) -> Result<S::Ok, S::Error> {
        match ids {
            [id] => Spelling::One(*id).serialize(to),
            _ => ids.serialize(to),
        }
    }
}

impl ModelConfig {
    /// Which family `architectures` names, or `model_type` where there is none; unknown ones are refused by name.
    pub fn family(&self) -> Result<Family> {
        let architecture = self.architectures.as_ref().and_then(|names| names.first()).map(String::as_str);
        let model_type = self.other.get("model_type").and_then(Value::as_str);
        Family::of(architecture, model_type)
    }

    /// The experts, where the family has any.
    pub fn experts(&self) -> Result<Option<Experts>> {
        experts::read(self.family()?, &self.other, self.intermediate_size)
    }

    /// The latent attention, where the family has it.
    pub fn latent(&self) -> Result<Option<LatentShape>> {
        latent::read(self.family()?, &self.other, self.num_attention_heads, self.num_key_value_heads)
    }

    /// The gated delta nets, where the family has them.
    pub fn delta(&self) -> Result<Option<DeltaShape>> {
        delta::read(self.family()?, &self.other, self.num_hidden_layers)
    }

    /// The sizes of the attention layers: of that over latents, where keys and values are made of them.
    pub fn heads(&self) -> Heads {
        if let Ok(Some(latent)) = self.latent() {
            return latent.sizes.attention();
        }
        Heads::alike(
            self.num_attention_heads,
            self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1)),
        )
    }

    /// Refuses shapes that cannot be computed, naming the value.
    pub fn validate(&self) -> Result<()> {
        let (turned, heads) = (self.rotated()?, self.heads());
        ensure!(heads.query > 0 && heads.key_value > 0, "a model needs at least one attention head");
        ensure!(
            heads.query.is_multiple_of(heads.key_value),
            "num_key_value_heads = {} does not divide num_attention_heads = {}",
            heads.key_value,
            heads.query
        );
        ensure!(
            turned >= 2 && turned.is_multiple_of(2),
            "head size {turned} cannot be used: rope turns pairs, so an even number from 2 on is needed"
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
        self.experts()?;
        self.delta()?;
        self.rope_frequencies()?;
        self.refuse_variants()
    }

    /// The same shape as it is written beside weights of type `dtype`.
    pub(super) fn stored_as(&self, dtype: SaveDtype) -> Self {
        let mut config = self.clone();
        // The older name, which every reader knows, unless the file had the newer one alone.
        let key = if self.other.contains_key("dtype") { "dtype" } else { "torch_dtype" };
        config.other.insert(key.to_owned(), dtype.torch_name().into());
        // Layers that predict further tokens are neither read nor written.
        for key in FURTHER {
            if let Some(layers) = config.other.get_mut(key) {
                *layers = 0.into();
            }
        }
        config
    }

    /// The type that the file says its weights are of; fp32 if it does not say.
    pub fn dtype(&self) -> SaveDtype {
        let name = ["dtype", "torch_dtype"].iter().find_map(|key| self.other.get(*key)?.as_str());
        let known = [SaveDtype::F32, SaveDtype::Bf16, SaveDtype::F16];
        known.into_iter().find(|dtype| Some(dtype.torch_name()) == name).unwrap_or_default()
    }

    /// Values of a head that are rotated: the first ones.
    fn rotated(&self) -> Result<usize> {
        if let Some(latent) = self.latent()? {
            return Ok(latent.sizes.rotated);
        }
        let own = self.family()?.rotated_part();
        let part = super::rope::part(&self.other)?.unwrap_or(own);
        ensure!(
            part == 1.0 || own < 1.0,
            "partial_rotary_factor = {part}: only a part of each head is rotated, which is not supported for {}",
            self.family()?.name()
        );
        Ok((self.heads().size as f64 * part) as usize)
    }

    /// Radians a position for each pair of the values of a head that are rotated.
    pub fn rope_frequencies(&self) -> Result<Vec<f64>> {
        super::rope::frequencies(self.rope_theta, &self.other, self.rotated()?, self.max_position_embeddings)
    }

    /// What rotated values are multiplied by, and what attention scores are beside `1 / sqrt(head size)`.
    pub fn rope_factors(&self) -> Result<[f64; 2]> {
        let [turned, scores] = super::rope::factors(&self.other, self.max_position_embeddings)?;
        Ok([turned, if self.family()?.is_latent() { scores } else { 1.0 }])
    }

    /// YaRN as the file asks for it, where it does.
    pub(super) fn yarn(&self) -> Result<Option<super::rope::Yarn>> {
        super::rope::yarn(&self.other, self.max_position_embeddings)
    }

    /// Whether a tensor belongs to a layer behind the last one: those that predict further tokens.
    pub(super) fn is_beyond(&self, tensor: &str) -> bool {
        if tensor.starts_with("mtp.") {
            return self.family().is_ok_and(Family::has_delta_nets);
        }
        let layer = tensor.strip_prefix("model.layers.").and_then(|name| name.split_once('.')?.0.parse::<usize>().ok());
        let further = self.other.get(FURTHER[0]).and_then(Value::as_u64).unwrap_or(0);
        layer.is_some_and(|layer| (self.num_hidden_layers..self.num_hidden_layers + further as usize).contains(&layer))
    }

    /// The base of the rotary angles.
    pub(super) fn rope_base(&self) -> Result<f64> {
        super::rope::base(self.rope_theta, &self.other)
    }

    /// Refuses what a file of a known architecture may ask for and the decoder does not compute.
    fn refuse_variants(&self) -> Result<()> {
        let set = |key: &str| self.other.get(key).filter(|value| !value.is_null());
        let activation = set("hidden_act").and_then(Value::as_str).unwrap_or("silu");
        ensure!(activation == "silu", "hidden_act = \"{activation}\" is not supported: silu is");
        for key in ["attention_bias", "mlp_bias"] {
            ensure!(set(key) != Some(&true.into()), "{key} = true is not supported: only Qwen2's own biases are");
        }
        ensure!(
            set("qkv_bias") != Some(&false.into()),
            "qkv_bias = false is not supported: Qwen2's layers have biases"
        );
        ensure!(
            set("clip_qkv").is_none(),
            "clip_qkv is set, which is not supported: queries, keys and values are not clipped"
        );
        ensure!(
            set("quantization_config").is_none(),
            "quantization_config is set: quantized weights cannot be trained, use the folder they were made from"
        );
        let kinds = set("layer_types").filter(|_| self.delta().is_ok_and(|delta| delta.is_none()));
        let kinds = kinds.and_then(Value::as_array).into_iter().flatten();
        let other = kinds.filter_map(Value::as_str).find(|kind| *kind != "full_attention");
        ensure!(
            other.is_none(),
            "layer_types names {}, which is not supported: full_attention is",
            other.unwrap_or("")
        );
        ensure!(
            !self.slides(),
            "sliding_window = {} is in use, which is not supported: set it to null if prompts and completions fit into it",
            set("sliding_window").unwrap_or(&Value::Null)
        );
        Ok(())
    }

    /// Whether some layer sees only a window of the past. Qwen's files name a window that `use_sliding_window` leaves
    /// unused, or that begins above the last layer.
    fn slides(&self) -> bool {
        let number = |key: &str| self.other.get(key).and_then(Value::as_u64);
        let asked = self.other.get("use_sliding_window").and_then(Value::as_bool);
        let unused = asked == Some(false)
            || (asked.is_none() && self.family().is_ok_and(Family::asks_for_windows))
            || number("max_window_layers").is_some_and(|from| from >= self.num_hidden_layers as u64);
        number("sliding_window").is_some() && !unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(architecture: &str, extra: Value) -> Result<ModelConfig> {
        let mut config = json!({
            "architectures": [architecture], "vocab_size": 9, "hidden_size": 8, "intermediate_size": 8,
            "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 16, "rms_norm_eps": 1e-6,
        });
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let config: ModelConfig = serde_json::from_value(config)?;
        config.validate()?;
        Ok(config)
    }

    #[test]
    fn what_the_decoder_does_not_compute_is_refused_by_name() {
        for (architecture, extra, word) in [
            ("MistralForCausalLM", json!({}), "known are LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM"),
            (
                "Qwen3MoeForCausalLM",
                json!({ "num_experts_per_tok": 2, "moe_intermediate_size": 8 }),
                "num_experts is missing",
            ),
            (
                "Qwen3MoeForCausalLM",
                json!({ "num_experts": 4, "num_experts_per_tok": 5, "moe_intermediate_size": 8 }),
                "num_experts_per_tok = 5",
            ),
            ("OlmoeForCausalLM", json!({ "num_experts": 4, "num_experts_per_tok": 2, "clip_qkv": 8.0 }), "clip_qkv"),
            ("LlamaForCausalLM", json!({ "sliding_window": 4096 }), "sliding_window = 4096"),
            ("Qwen2ForCausalLM", json!({ "sliding_window": 32, "use_sliding_window": true }), "sliding_window = 32"),
            (
                "Qwen3ForCausalLM",
                json!({ "layer_types": ["full_attention", "sliding_attention"] }),
                "sliding_attention",
            ),
            ("Qwen3ForCausalLM", json!({ "attention_bias": true }), "attention_bias"),
            ("LlamaForCausalLM", json!({ "hidden_act": "gelu" }), "gelu"),
            ("LlamaForCausalLM", json!({ "quantization_config": { "bits": 4 } }), "quantization_config"),
            ("LlamaForCausalLM", json!({ "num_key_value_heads": 3 }), "num_key_value_heads = 3"),
            ("LlamaForCausalLM", json!({ "rope_scaling": { "type": "dynamic" } }), "dynamic"),
            ("LlamaForCausalLM", json!({ "partial_rotary_factor": 0.5 }), "partial_rotary_factor = 0.5"),
            (
                "Qwen3ForCausalLM",
                json!({ "rope_parameters": { "partial_rotary_factor": 0.5 } }),
                "not supported for qwen3",
            ),
        ] {
            let message = format!("{:#}", read(architecture, extra).unwrap_err());
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn latents_and_experts_that_are_not_computed_are_refused_by_name() {
        let shape = json!({
            "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4, "n_routed_experts": 8,
            "num_experts_per_tok": 2, "n_group": 4, "topk_group": 2, "moe_intermediate_size": 8,
        });
        let read = |architecture: &str, more: Value| {
            let mut extra = shape.clone();
            extra.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            read(architecture, extra)
        };
        let (second, third) = ("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM");
        let config = read(third, json!({ "q_lora_rank": null })).unwrap();
        assert_eq!((config.latent().unwrap().unwrap().query_rank, config.heads().size), (None, 12));
        for (architecture, more, word) in [
            (third, json!({ "num_key_value_heads": 1 }), "num_key_value_heads = 1"),
            (third, json!({ "qk_rope_head_dim": 3 }), "head size 3"),
            (third, json!({ "kv_lora_rank": null }), "kv_lora_rank is missing"),
            (third, json!({ "n_group": 3 }), "n_group = 3"),
            (third, json!({ "topk_group": 1, "num_experts_per_tok": 3 }), "have no 3"),
            (third, json!({ "n_group": 8, "topk_group": 8 }), "needs two"),
            (third, json!({ "topk_method": "greedy" }), "topk_method = \"greedy\" is not supported for deepseek_v3"),
            (second, json!({ "topk_method": "noaux_tc" }), "topk_method = \"noaux_tc\""),
            (third, json!({ "attention_bias": true }), "attention_bias"),
        ] {
            let message = format!("{:#}", read(architecture, more).unwrap_err());
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn delta_nets_that_are_not_computed_are_refused_by_name() {
        let shape = json!({
            "num_hidden_layers": 5, "head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
            "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        });
        let read = |more: Value| {
            let mut extra = shape.clone();
            extra.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            read("Qwen3_5ForCausalLM", extra)
        };
        let linear = |config: &ModelConfig| {
            let delta = config.delta().unwrap().unwrap();
            (0..5).map(|layer| delta.in_layer(layer)).collect::<Vec<_>>()
        };
        let config = read(json!({})).unwrap();
        assert_eq!(linear(&config), [true, true, true, false, true], "three to one");
        assert_eq!((config.rope_frequencies().unwrap().len(), config.delta().unwrap().unwrap().sizes.taps), (2, 4));
        let halves = read(json!({ "partial_rotary_factor": 0.5, "full_attention_interval": 2 })).unwrap();
        assert_eq!(
            (linear(&halves), halves.rope_frequencies().unwrap().len()),
            (vec![true, false, true, false, true], 4)
        );
        for (more, word) in [
            (json!({ "linear_num_key_heads": 3 }), "linear_num_key_heads = 3"),
            (json!({ "linear_value_head_dim": null }), "linear_value_head_dim is missing"),
            (json!({ "linear_conv_kernel_dim": 0 }), "linear_conv_kernel_dim"),
            (json!({ "layer_types": ["full_attention"] }), "names 1 layers"),
            (json!({ "layer_types": vec!["sliding_attention"; 5] }), "sliding_attention"),
            (json!({ "full_attention_interval": 0 }), "full_attention_interval = 0"),
            (json!({ "attn_output_gate": false }), "attn_output_gate"),
            (json!({ "output_gate_type": "relu" }), "relu"),
            (json!({ "partial_rotary_factor": 0.1 }), "head size 1"),
        ] {
            let message = format!("{:#}", read(more).unwrap_err());
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn the_family_is_that_of_architectures_or_of_model_type() {
        let read = |names: Value| -> Result<Family> {
            let mut config = json!({
                "vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2,
                "num_attention_heads": 2, "max_position_embeddings": 16, "rms_norm_eps": 1e-6,
            });
            config.as_object_mut().unwrap().extend(names.as_object().unwrap().clone());
            let config: ModelConfig = serde_json::from_value(config)?;
            let kept = serde_json::to_value(&config)?;
            assert_eq!(kept.get("model_type"), names.get("model_type"), "what was read is written");
            config.family()
        };
        for (names, family) in [
            (json!({ "model_type": "llama" }), Family::Llama),
            (json!({ "model_type": "qwen2", "architectures": null }), Family::Qwen2),
            (json!({ "model_type": "qwen3", "architectures": [] }), Family::Qwen3),
            (json!({ "model_type": "of_no_account", "architectures": ["Qwen3ForCausalLM"] }), Family::Qwen3),
        ] {
            assert_eq!(read(names).unwrap(), family);
        }
        for (names, word) in [
            (json!({ "model_type": "mistral" }), "model_type \"mistral\" is not known; known are llama, qwen2, qwen3"),
            (json!({}), "neither architectures nor model_type"),
        ] {
            let message = format!("{:#}", read(names).unwrap_err());
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn windows_that_no_layer_uses_are_accepted() {
        for extra in [
            json!({ "sliding_window": 131072, "use_sliding_window": false, "max_window_layers": 1 }),
            json!({ "sliding_window": 131072, "use_sliding_window": true, "max_window_layers": 2 }),
            json!({ "sliding_window": null, "layer_types": ["full_attention", "full_attention"] }),
        ] {
            read("Qwen2ForCausalLM", extra).unwrap();
        }
    }

    #[test]
    fn end_tokens_may_be_none_one_or_several() {
        for (spelling, ids) in [(json!(null), vec![]), (json!(7), vec![7]), (json!([7, 8]), vec![7, 8])] {
            let config = read("LlamaForCausalLM", json!({ "eos_token_id": spelling })).unwrap();
            assert_eq!(config.eos_token_id, ids);
            let written = serde_json::to_value(&config).unwrap();
            assert_eq!(written.get("eos_token_id").unwrap_or(&Value::Null), &spelling);
        }
    }
}
