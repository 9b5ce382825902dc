//! Experts as GGUF files have them: their metadata, and what llama.cpp takes for granted of each architecture, so that
//! another model is refused. Their tensors, all experts of a layer in one, are named in `names`.

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use crate::model::config::ModelConfig;
use crate::model::experts::Experts;
use crate::ops::experts::Router;

/// Whether files of this architecture have experts.
pub(super) fn has(architecture: &str) -> bool {
    matches!(architecture, "qwen2moe" | "qwen3moe" | "olmoe")
}

/// What `config.json` says of experts, beside what all models have.
pub(super) fn read(metadata: &Metadata, name: &str, intermediate: usize) -> Result<Map<String, Value>> {
    let mut config = Map::new();
    if !has(name) {
        return Ok(config);
    }
    let key = |part: &str| format!("{name}.{part}");
    let optional = |part: &str| metadata.count(&key(part));
    let active = metadata.required(&key("expert_used_count"))?;
    let mut set = |key: &str, value: Value| drop(config.insert(key.to_owned(), value));
    set("num_experts", json!(metadata.required(&key("expert_count"))?));
    set("num_experts_per_tok", json!(active));
    set("norm_topk_prob", json!(is_normalised(name)));
    if name != "olmoe" {
        let width = optional("expert_feed_forward_length")?.unwrap_or(intermediate / active.max(1));
        set("moe_intermediate_size", json!(width));
    }
    if name == "qwen2moe" {
        let shared = optional("expert_shared_feed_forward_length")?.unwrap_or(intermediate);
        set("shared_expert_intermediate_size", json!(shared));
    }
    Ok(config)
}

/// Whether llama.cpp divides the weights of a token's experts by their sum.
fn is_normalised(architecture: &str) -> bool {
    architecture == "qwen3moe"
}

/// The counts that a file has of the experts of a model; refuses those that llama.cpp would compute otherwise.
pub(super) fn entries(config: &ModelConfig, architecture: &str) -> Result<Vec<(&'static str, usize)>> {
    let Some(experts) = config.experts()? else { return Ok(Vec::new()) };
    check(config, &experts, architecture)?;
    let Router { experts: count, active, .. } = experts.router;
    let mut counts = vec![("expert_count", count), ("expert_used_count", active)];
    if architecture != "olmoe" {
        counts.push(("expert_feed_forward_length", experts.width));
    }
    if experts.shared > 0 {
        counts.push(("expert_shared_feed_forward_length", experts.shared));
    }
    Ok(counts)
}

/// Refuses what an architecture of llama.cpp has no room for.
fn check(config: &ModelConfig, experts: &Experts, architecture: &str) -> Result<()> {
    let (heads, dense) = (config.heads(), config.num_hidden_layers - experts.layers(config.num_hidden_layers).len());
    let refuse = |what: &str| bail!("{what}, which llama.cpp does not compute for {architecture}: export a folder");
    if dense > 0 {
        return refuse(&format!("{dense} layers have no experts"));
    }
    if experts.router.normalised != is_normalised(architecture) {
        return refuse(&format!("norm_topk_prob = {}", experts.router.normalised));
    }
    if config.tie_word_embeddings && architecture != "qwen3moe" {
        return refuse("the output matrix is the embedding");
    }
    if heads.output() != config.hidden_size && architecture != "qwen3moe" {
        return refuse(&format!("heads are {} wide together", heads.output()));
    }
    if heads.key_value != heads.query && architecture == "olmoe" {
        return refuse(&format!("{} heads share {} keys and values", heads.query, heads.key_value));
    }
    Ok(())
}
