//! Latent attention as `config.json` asks for it. What is computed is [`crate::ops::attention::latent`].

use anyhow::{Result, ensure};
use serde_json::{Map, Value};

use super::family::Family;
use super::keys::Keys;
use crate::ops::attention::latent::Latent;
use crate::ops::rope::Pairs;

/// Added under the root of the norms of latents and of compressed queries, whatever `rms_norm_eps` is.
pub(super) const EPS: f32 = 1e-6;

/// The latent attention of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatentShape {
    /// Its sizes.
    pub sizes: Latent,
    /// Values that queries are compressed to, where they are.
    pub query_rank: Option<usize>,
    /// Which values are rotated with each other.
    pub pairs: Pairs,
}

/// The latent attention of a model of this family, where it has any. `other` are the keys of the file that every family
/// does not have.
pub(super) fn read(
    family: Family,
    other: &Map<String, Value>,
    heads: usize,
    key_value_heads: Option<usize>,
) -> Result<Option<LatentShape>> {
    if !family.is_latent() {
        return Ok(None);
    }
    let keys = Keys(other);
    ensure!(
        key_value_heads.is_none_or(|count| count == heads),
        "num_key_value_heads = {}: heads of latent attention have keys of their own, {heads} here",
        key_value_heads.unwrap_or(0)
    );
    let sizes = Latent {
        heads,
        plain: keys.number("qk_nope_head_dim")?,
        rotated: keys.number("qk_rope_head_dim")?,
        rank: keys.number("kv_lora_rank")?,
        value: keys.number("v_head_dim")?,
    };
    ensure!(
        sizes.rank > 0 && sizes.value > 0 && sizes.plain > 0,
        "kv_lora_rank, v_head_dim and qk_nope_head_dim must be at least 1"
    );
    let neighbours = family == Family::DeepseekV2 || keys.flag("rope_interleave").unwrap_or(true);
    Ok(Some(LatentShape {
        sizes,
        query_rank: keys.optional("q_lora_rank")?,
        pairs: if neighbours { Pairs::Neighbours } else { Pairs::Halves },
    }))
}
