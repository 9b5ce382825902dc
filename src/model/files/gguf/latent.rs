//! Latent attention as GGUF files have it: its sizes in the metadata, YaRN in llama.cpp's words, and the matrix that
//! expands latents as two tensors of a layer: that of the keys, transposed for the absorbed form, and that of the values.

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use super::value::Entry;
use crate::model::config::ModelConfig;
use crate::ops::attention::latent::Latent;
use crate::ops::rope::Pairs;

/// The architecture whose attention is latent.
pub(super) const ARCHITECTURE: &str = "deepseek2";
/// The matrix that expands latents, behind `model.layers.N.`.
pub(super) const EXPAND: &str = "self_attn.kv_b_proj.weight";
/// The tensors that it is in GGUF files, behind `blk.N.`.
pub(super) const HALVES: [&str; 2] = ["attn_k_b.weight", "attn_v_b.weight"];
/// Added under the root of the norms of latents, whatever the file says of others.
const EPSILON: f32 = 1e-6;

/// Layers of the models whose queries llama.cpp takes for not compressed.
const PLAIN_QUERIES: [usize; 2] = [26, 27];

/// What `config.json` says of the attention.
pub(super) fn read(metadata: &Metadata, heads: usize) -> Result<Map<String, Value>> {
    let key = |part: &str| format!("{ARCHITECTURE}.{part}");
    let required = |part: &str| metadata.required(&key(part));
    let optional = |part: &str| metadata.count(&key(part));
    let rotated = required("rope.dimension_count")?;
    // Files from before the absorbed form have the sizes of heads under the keys of others.
    let size = optional("attention.key_length_mla")?.map_or_else(|| required("attention.key_length"), Ok)?;
    let value = optional("attention.value_length_mla")?.map_or_else(|| required("attention.value_length"), Ok)?;
    ensure!(
        size > rotated,
        "{ARCHITECTURE}.attention.key_length_mla = {size} has no room beside {rotated} rotated values"
    );
    let mut config = Map::new();
    let mut set = |key: &str, value: Value| drop(config.insert(key.to_owned(), value));
    set("num_key_value_heads", json!(heads));
    set("head_dim", json!(rotated));
    set("qk_rope_head_dim", json!(rotated));
    set("qk_nope_head_dim", json!(size - rotated));
    set("v_head_dim", json!(value));
    set("kv_lora_rank", json!(required("attention.kv_lora_rank")?));
    set("q_lora_rank", json!(optional("attention.q_lora_rank")?));
    set("rope_scaling", scaling(metadata)?);
    Ok(config)
}

/// `rope_scaling` of a file.
fn scaling(metadata: &Metadata) -> Result<Value> {
    let key = |part: &str| format!("{ARCHITECTURE}.rope.scaling.{part}");
    let number = |part: &str| metadata.number(&key(part));
    let kind = metadata.text(&key("type"))?.unwrap_or("none");
    if kind == "none" {
        return Ok(Value::Null);
    }
    ensure!(kind == "yarn", "{} = \"{kind}\" is not supported: yarn is, and none", key("type"));
    let mut scaling = json!({
        "type": "yarn", "factor": number("factor")?.unwrap_or(1.0),
        "original_max_position_embeddings": metadata.required(&key("original_context_length"))?,
        "beta_fast": number("yarn_beta_fast")?.unwrap_or(32.0), "beta_slow": number("yarn_beta_slow")?.unwrap_or(1.0),
    });
    // A tenth of the temperature, for reasons of its history.
    let mscale = number("yarn_log_multiplier")?.unwrap_or(0.0) * 10.0;
    let mscale = (mscale * 1e6).round() / 1e6;
    (scaling["mscale"], scaling["mscale_all_dim"]) = (json!(mscale), json!(mscale));
    Ok(scaling)
}

/// The metadata of the attention; refuses what llama.cpp computes otherwise.
pub(super) fn entries(config: &ModelConfig) -> Result<Vec<(&'static str, Entry)>> {
    let Some(shape) = config.latent()? else { return Ok(Vec::new()) };
    let s = shape.sizes;
    ensure!(
        shape.pairs == Pairs::Neighbours,
        "rope_interleave = false cannot be written for {ARCHITECTURE}: export a folder"
    );
    ensure!(
        config.rms_norm_eps == EPSILON,
        "rms_norm_eps = {}: llama.cpp has one for all norms of {ARCHITECTURE}, and those of latents have {EPSILON}; \
         export a folder",
        config.rms_norm_eps
    );
    let layers = config.num_hidden_layers;
    ensure!(
        shape.query_rank.is_some() || PLAIN_QUERIES.contains(&layers),
        "q_lora_rank = null: llama.cpp takes queries of {ARCHITECTURE} for compressed in models of {layers} layers; \
         export a folder"
    );
    let count = |count: usize| Ok::<_, anyhow::Error>(Entry::Count(u32::try_from(count)?));
    let mut entries = vec![
        ("attention.head_count_kv", count(1)?),
        ("attention.key_length", count(s.rank + s.rotated)?),
        ("attention.value_length", count(s.rank)?),
        ("attention.key_length_mla", count(s.plain + s.rotated)?),
        ("attention.value_length_mla", count(s.value)?),
        ("attention.kv_lora_rank", count(s.rank)?),
        ("rope.dimension_count", count(s.rotated)?),
    ];
    if let Some(rank) = shape.query_rank {
        entries.push(("attention.q_lora_rank", count(rank)?));
    }
    if let Some(yarn) = config.yarn()? {
        ensure!(
            config.rope_factors()?[0] == 1.0 && yarn.mscale_all_dim > 0.0,
            "yarn whose mscale and mscale_all_dim differ cannot be written for {ARCHITECTURE}: export a folder"
        );
        entries.extend([
            ("rope.scaling.type", Entry::Text("yarn".to_owned())),
            ("rope.scaling.factor", Entry::Number(yarn.factor as f32)),
            ("rope.scaling.original_context_length", count(yarn.original as usize)?),
            ("rope.scaling.yarn_log_multiplier", Entry::Number((0.1 * yarn.mscale_all_dim) as f32)),
            ("rope.scaling.yarn_beta_fast", Entry::Number(yarn.beta_fast as f32)),
            ("rope.scaling.yarn_beta_slow", Entry::Number(yarn.beta_slow as f32)),
        ]);
    }
    Ok(entries)
}

/// Which of the two tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    /// Of the keys: `(H, R, P)`, latents to rows.
    Keys,
    /// Of the values: `(H, V, R)`.
    Values,
}

impl Half {
    /// Its shape.
    pub(super) fn shape(self, s: Latent) -> [usize; 3] {
        match self {
            Self::Keys => [s.heads, s.rank, s.plain],
            Self::Values => [s.heads, s.value, s.rank],
        }
    }

    /// Its values of those of the whole matrix `(H (P + V), R)`.
    pub(super) fn of(self, whole: &[f32], s: Latent) -> Vec<f32> {
        let heads = whole.chunks_exact((s.plain + s.value) * s.rank).map(|head| head.split_at(s.plain * s.rank));
        match self {
            Self::Keys => heads.flat_map(|(keys, _)| transposed(keys, s.rank)).collect(),
            Self::Values => heads.flat_map(|(_, values)| values).copied().collect(),
        }
    }
}

/// The whole matrix of its two tensors.
pub(super) fn joined(keys: &[f32], values: &[f32], s: Latent) -> Vec<f32> {
    let heads = keys.chunks_exact(s.rank * s.plain).zip(values.chunks_exact(s.value * s.rank));
    heads.flat_map(|(keys, values)| [transposed(keys, s.plain), values.to_vec()].concat()).collect()
}

/// A matrix whose rows are the columns of one with rows of `width` values.
fn transposed(matrix: &[f32], width: usize) -> Vec<f32> {
    (0..width).flat_map(|column| matrix.iter().skip(column).step_by(width)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_cut_in_two_and_joined_again() {
        let sizes = Latent { heads: 2, plain: 2, rotated: 2, rank: 3, value: 1 };
        let whole: Vec<f32> = (0..18).map(|value| value as f32).collect();
        let (keys, values) = (Half::Keys.of(&whole, sizes), Half::Values.of(&whole, sizes));
        assert_eq!(keys, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0, 9.0, 12.0, 10.0, 13.0, 11.0, 14.0]);
        assert_eq!(values, [6.0, 7.0, 8.0, 15.0, 16.0, 17.0]);
        assert_eq!(joined(&keys, &values, sizes), whole);
        assert_eq!(keys.len(), Half::Keys.shape(sizes).iter().product::<usize>());
    }
}
