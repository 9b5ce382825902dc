//! Gated delta nets as GGUF files have them (`qwen35`): their metadata, and the tensors whose values are others there.
//! llama.cpp has the decay itself where Hugging Face has its logarithm, and norms that multiply by what they hold.

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use super::value::Entry;
use crate::model::config::{Family, ModelConfig};
use crate::ops::delta::Delta;

/// The architecture with delta nets.
pub(super) const ARCHITECTURE: &str = "qwen35";

/// The share of rotated pairs that follow each of the four positions of a model that sees images. Of a text all are equal,
/// but llama.cpp wants to be told.
const SECTIONS: [i32; 4] = [11, 11, 10, 0];

/// Added to the squared lengths of queries and keys, whatever the file says of norms.
const EPSILON: f32 = 1e-6;

/// What `config.json` says of rotated parts and delta nets, of a model of so many layers with heads of `size`.
pub(super) fn read(metadata: &Metadata, layers: usize, size: usize) -> Result<Map<String, Value>> {
    let key = |part: &str| format!("{ARCHITECTURE}.{part}");
    let required = |part: &str| metadata.required(&key(part));
    let further = metadata.count(&key("nextn_predict_layers"))?.unwrap_or(0);
    ensure!(
        further == 0,
        "it has {further} layers that predict further tokens: convert the model without them (--no-mtp)"
    );
    let rotated = metadata.count(&key("rope.dimension_count"))?.unwrap_or(size);
    let (value_heads, inner) = (required("ssm.time_step_rank")?, required("ssm.inner_size")?);
    ensure!(
        value_heads > 0 && inner.is_multiple_of(value_heads),
        "{} = {inner} is no whole number of {value_heads} heads",
        key("ssm.inner_size")
    );
    let mut config = Map::new();
    let mut set = |key: &str, value: Value| drop(config.insert(key.to_owned(), value));
    set("partial_rotary_factor", json!(rotated as f64 / size.max(1) as f64));
    set("linear_num_key_heads", json!(required("ssm.group_count")?));
    set("linear_num_value_heads", json!(value_heads));
    set("linear_key_head_dim", json!(required("ssm.state_size")?));
    set("linear_value_head_dim", json!(inner / value_heads));
    set("linear_conv_kernel_dim", json!(required("ssm.conv_kernel")?));
    match metadata.flags(&key("attention.recurrent_layers"))? {
        Some(recurrent) => {
            let kinds = recurrent.iter().map(|is| if *is { "linear_attention" } else { "full_attention" });
            set("layer_types", json!(kinds.take(layers).collect::<Vec<_>>()));
        }
        None => set("full_attention_interval", json!(metadata.count(&key("full_attention_interval"))?.unwrap_or(4))),
    }
    Ok(config)
}

/// Refuses heads that llama.cpp has in another order, or of sizes that it has no room for.
pub(super) fn check(config: &ModelConfig) -> Result<()> {
    let Some(delta) = config.delta()? else { return Ok(()) };
    let Delta { key_heads, value_heads, key, value, .. } = delta.sizes;
    ensure!(
        key_heads == value_heads,
        "{value_heads} value heads of {key_heads} keys stand in another order in files of {ARCHITECTURE}, which is not \
         supported: use a folder, which llama.cpp's own converter reads"
    );
    ensure!(
        config.rms_norm_eps == EPSILON,
        "rms_norm_eps = {}: llama.cpp has one for all norms of {ARCHITECTURE}, and lengths of queries and keys have \
         {EPSILON}; use a folder",
        config.rms_norm_eps
    );
    ensure!(key == value, "keys of {key} and values of {value}: llama.cpp has one size for both; use a folder");
    Ok(())
}

/// The metadata of a model with delta nets.
pub(super) fn entries(config: &ModelConfig) -> Result<Vec<(&'static str, Entry)>> {
    let Some(delta) = config.delta()? else { return Ok(Vec::new()) };
    check(config)?;
    let s = delta.sizes;
    let count = |count: usize| Ok::<_, anyhow::Error>(Entry::Count(u32::try_from(count)?));
    let recurrent = (0..config.num_hidden_layers).map(|layer| delta.in_layer(layer)).collect();
    Ok(vec![
        ("rope.dimension_sections", Entry::Whole(SECTIONS.to_vec())),
        ("ssm.conv_kernel", count(s.taps)?),
        ("ssm.state_size", count(s.key)?),
        ("ssm.group_count", count(s.key_heads)?),
        ("ssm.time_step_rank", count(s.value_heads)?),
        ("ssm.inner_size", count(s.outputs())?),
        ("attention.recurrent_layers", Entry::Flags(recurrent)),
    ])
}

/// How the values of a tensor in a GGUF file differ from Hugging Face's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// What a norm multiplies by, which is one more.
    Factor,
    /// The rate of a decay, negative, of which Hugging Face has the logarithm.
    Decay,
}

impl Meaning {
    /// That of a tensor by its Hugging Face name, where it differs.
    pub(super) fn of(name: &str, config: &ModelConfig) -> Option<Self> {
        if config.family().ok() != Some(Family::Qwen3_5) {
            return None;
        }
        let is_norm = name.ends_with("norm.weight") && !name.ends_with("linear_attn.norm.weight");
        let is_decay = name.ends_with("A_log");
        is_norm.then_some(Self::Factor).or(is_decay.then_some(Self::Decay))
    }

    /// From Hugging Face's values to GGUF's.
    pub(super) fn write(self, values: &mut [f32]) {
        values.iter_mut().for_each(|x| match self {
            Self::Factor => *x += 1.0,
            Self::Decay => *x = -x.exp(),
        });
    }

    /// The other way of [`Meaning::write`].
    pub(super) fn read(self, values: &mut [f32]) {
        values.iter_mut().for_each(|x| match self {
            Self::Factor => *x -= 1.0,
            Self::Decay => *x = (-*x).ln(),
        });
    }
}
