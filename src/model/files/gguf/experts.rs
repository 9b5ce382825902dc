//! Experts as GGUF files have them: their metadata, and what llama.cpp takes for granted of each architecture, so that
//! another model is refused. Their tensors, all experts of a layer in one, are named in `names`.

use anyhow::{Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::latent;
use super::metadata::Metadata;
use super::value::Entry;
use crate::model::config::ModelConfig;
use crate::model::experts::Experts;
use crate::ops::experts::{GroupScore, Router, Scores};

/// How llama.cpp numbers what makes scores of a router's products.
const SIGMOID: usize = 2;

/// Whether files of this architecture have experts.
fn has(architecture: &str) -> bool {
    matches!(architecture, "qwen2moe" | "qwen3moe" | "olmoe" | latent::ARCHITECTURE)
}

/// Whether a key that asks most architectures for what is not computed here is one that this architecture has.
pub(super) fn may_ask(architecture: &str, part: &str) -> bool {
    match part {
        "expert_count" => has(architecture),
        "leading_dense_block_count" | "expert_group_count" => architecture == latent::ARCHITECTURE,
        _ => false,
    }
}

/// What `config.json` says of experts, beside what all models have.
pub(super) fn read(metadata: &Metadata, name: &str, intermediate: usize) -> Result<Map<String, Value>> {
    let mut config = Map::new();
    if !has(name) {
        return Ok(config);
    }
    let key = |part: &str| format!("{name}.{part}");
    let optional = |part: &str| metadata.count(&key(part));
    let (count, active) = (metadata.required(&key("expert_count"))?, metadata.required(&key("expert_used_count"))?);
    let width = optional("expert_feed_forward_length")?.unwrap_or(intermediate / active.max(1));
    let mut set = |key: &str, value: Value| drop(config.insert(key.to_owned(), value));
    set("num_experts_per_tok", json!(active));
    if name == latent::ARCHITECTURE {
        let third = optional("expert_gating_func")? == Some(SIGMOID);
        let groups = optional("expert_group_count")?.unwrap_or(1);
        ensure!(
            third || groups <= 1,
            "{} = {groups} groups of shares are not computed here",
            key("expert_group_count")
        );
        set("architectures", json!([if third { "DeepseekV3ForCausalLM" } else { "DeepseekV2ForCausalLM" }]));
        set("model_type", json!(if third { "deepseek_v3" } else { "deepseek_v2" }));
        set("topk_method", json!(if third { "noaux_tc" } else { "greedy" }));
        set("n_routed_experts", json!(count));
        set("n_shared_experts", json!(optional("expert_shared_count")?.unwrap_or(0)));
        set("n_group", json!(groups));
        set("topk_group", json!(optional("expert_group_used_count")?.unwrap_or(1)));
        set("first_k_dense_replace", json!(optional("leading_dense_block_count")?.unwrap_or(0)));
        set("routed_scaling_factor", json!(metadata.number(&key("expert_weights_scale"))?.unwrap_or(1.0)));
        set("norm_topk_prob", json!(metadata.flag(&key("expert_weights_norm"))?.unwrap_or(false)));
        set("moe_intermediate_size", json!(width));
        return Ok(config);
    }
    set("num_experts", json!(count));
    set("norm_topk_prob", json!(is_normalised(name)));
    if name != "olmoe" {
        set("moe_intermediate_size", json!(width));
    }
    if name == "qwen2moe" {
        let shared = optional("expert_shared_feed_forward_length")?.unwrap_or(intermediate);
        set("shared_expert_intermediate_size", json!(shared));
    }
    Ok(config)
}

/// Whether llama.cpp divides the weights of a token's experts by their sum, where no key says so.
fn is_normalised(architecture: &str) -> bool {
    architecture == "qwen3moe"
}

/// What a file says of the experts of a model; refuses those that llama.cpp would compute otherwise.
pub(super) fn entries(config: &ModelConfig, architecture: &str) -> Result<Vec<(&'static str, Entry)>> {
    let Some(experts) = config.experts()? else { return Ok(Vec::new()) };
    let layers = experts.layers(config.num_hidden_layers);
    let dense = config.num_hidden_layers - layers.len();
    check(config, &experts, architecture)?;
    let Router { experts: number, active, scores, groups, normalised, scale } = experts.router;
    let count = |count: usize| Ok::<_, anyhow::Error>(Entry::Count(u32::try_from(count)?));
    let mut entries = vec![("expert_count", count(number)?), ("expert_used_count", count(active)?)];
    if architecture != "olmoe" {
        entries.push(("expert_feed_forward_length", count(experts.width)?));
    }
    if architecture != latent::ARCHITECTURE {
        if experts.shared > 0 {
            entries.push(("expert_shared_feed_forward_length", count(experts.shared)?));
        }
        return Ok(entries);
    }
    entries.extend([
        ("expert_shared_count", count(experts.shared / experts.width)?),
        ("leading_dense_block_count", count(dense)?),
        ("expert_gating_func", count(if scores == Scores::Sigmoid { SIGMOID } else { 1 })?),
        ("expert_weights_scale", Entry::Number(scale)),
        ("expert_weights_norm", Entry::Flag(normalised)),
    ]);
    if let Some(groups) = groups {
        entries.push(("expert_group_count", count(groups.count)?));
        entries.push(("expert_group_used_count", count(groups.kept)?));
    }
    Ok(entries)
}

/// Refuses what an architecture of llama.cpp has no room for.
fn check(config: &ModelConfig, experts: &Experts, architecture: &str) -> Result<()> {
    let (heads, layers) = (config.heads(), experts.layers(config.num_hidden_layers));
    let dense = config.num_hidden_layers - layers.len();
    let refuse = |what: &str| bail!("{what}, which llama.cpp does not compute for {architecture}: export a folder");
    if architecture == latent::ARCHITECTURE {
        if layers.first() != Some(&dense) {
            return refuse("layers with experts do not stand behind all others");
        }
        if experts.shared == 0 {
            return refuse("n_shared_experts = 0");
        }
        if experts.router.groups.is_some_and(|groups| groups.score == GroupScore::Largest) {
            return refuse("topk_method = \"group_limited_greedy\"");
        }
        return Ok(());
    }
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
