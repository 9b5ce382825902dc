//! Gated delta nets as `config.json` asks for them: their sizes, and which layers they are. What is computed is
//! [`crate::ops::delta`].

use anyhow::{Result, bail, ensure};
use serde_json::{Map, Value};

use super::family::Family;
use super::keys::Keys;
use crate::ops::delta::Delta;

/// The gated delta nets of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaShape {
    /// Their sizes.
    pub sizes: Delta,
    /// Whether each layer is one; the others attend to all tokens.
    layers: Vec<bool>,
}

impl DeltaShape {
    /// Whether a layer is one.
    pub fn in_layer(&self, index: usize) -> bool {
        self.layers.get(index) == Some(&true)
    }
}

/// The gated delta nets of a model of this family, where it has any. `other` are the keys of the file that every family
/// does not have.
pub(super) fn read(family: Family, other: &Map<String, Value>, layers: usize) -> Result<Option<DeltaShape>> {
    if !family.has_delta_nets() {
        return Ok(None);
    }
    let keys = Keys(other);
    let sizes = Delta {
        key_heads: keys.number("linear_num_key_heads")?,
        value_heads: keys.number("linear_num_value_heads")?,
        key: keys.number("linear_key_head_dim")?,
        value: keys.number("linear_value_head_dim")?,
        taps: keys.optional("linear_conv_kernel_dim")?.unwrap_or(4),
    };
    let Delta { key_heads, value_heads, key, value, taps } = sizes;
    ensure!(
        key > 0 && value > 0 && taps > 0,
        "linear_key_head_dim, linear_value_head_dim and linear_conv_kernel_dim must be at least 1"
    );
    ensure!(
        key_heads > 0 && value_heads > 0 && value_heads.is_multiple_of(key_heads),
        "linear_num_key_heads = {key_heads} does not divide linear_num_value_heads = {value_heads}"
    );
    ensure!(
        keys.flag("attn_output_gate") != Some(false),
        "attn_output_gate = false is not supported: outputs of {} have gates",
        family.name()
    );
    let gate = keys.text("output_gate_type").unwrap_or("silu");
    ensure!(["silu", "swish"].contains(&gate), "output_gate_type = \"{gate}\" is not supported: silu is");
    Ok(Some(DeltaShape { sizes, layers: kinds(&keys, layers)? }))
}

/// Which layers are delta nets, as `layer_types` says, or `full_attention_interval`.
fn kinds(keys: &Keys, layers: usize) -> Result<Vec<bool>> {
    let Some(kinds) = keys.0.get("layer_types").and_then(Value::as_array) else {
        let every = keys.optional("full_attention_interval")?.unwrap_or(4);
        ensure!(every > 0, "full_attention_interval = 0: it must be at least 1");
        return Ok((1..=layers).map(|layer| !layer.is_multiple_of(every)).collect());
    };
    ensure!(kinds.len() == layers, "layer_types names {} layers of num_hidden_layers = {layers}", kinds.len());
    let kind = |kind: &Value| match kind.as_str() {
        Some("linear_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => bail!("layer_types names {kind}, which is not supported: full_attention and linear_attention are"),
    };
    kinds.iter().map(kind).collect()
}
