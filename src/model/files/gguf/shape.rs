//! A model's shape as the metadata of a GGUF file says it, in the words of `config.json`, and back.

use std::f64::consts::TAU;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::delta;
use super::experts;
use super::latent;
use super::metadata::Metadata;
use super::value::Entry;
use crate::model::config::{Family, ModelConfig};

/// Architectures that are read: GGUF's name, `model_type`, and the name in `config.json`.
pub(super) const ARCHITECTURES: [(&str, &str, &str); 8] = [
    ("llama", "llama", "LlamaForCausalLM"),
    ("qwen2", "qwen2", "Qwen2ForCausalLM"),
    ("qwen3", "qwen3", "Qwen3ForCausalLM"),
    ("qwen2moe", "qwen2_moe", "Qwen2MoeForCausalLM"),
    ("qwen3moe", "qwen3_moe", "Qwen3MoeForCausalLM"),
    ("olmoe", "olmoe", "OlmoeForCausalLM"),
    // Or the second version, as its router says.
    (latent::ARCHITECTURE, "deepseek_v3", "DeepseekV3ForCausalLM"),
    (delta::ARCHITECTURE, "qwen3_5_text", "Qwen3_5ForCausalLM"),
];

/// Architectures of models that are sampled from and not trained, as GGUF and `model_type` call them. Gemma 3 is not among
/// them: candle's from blocks has another activation, and what it says is not what transformers says.
pub(super) const SAMPLED: [&str; 2] = ["glm4", "phi3"];

/// Keys that ask for what the decoder does not compute, unless they are 0.
const UNSUPPORTED: [&str; 8] = [
    "expert_count",
    "attention.scale",
    "attention.sliding_window",
    "logit_scale",
    "embedding_scale",
    "residual_scale",
    "leading_dense_block_count",
    "expert_group_count",
];

/// Longest context that is taken for one, in tokens: ten times what models of this kind have. The angles of all its
/// positions are held.
pub(super) const LONGEST_CONTEXT: usize = 1 << 24;

/// What is known of a file beside its metadata.
pub(super) struct Found {
    /// Rows of the embedding.
    pub(super) vocab: usize,
    /// Tensors in the file.
    pub(super) tensors: usize,
    /// Whether there is no output matrix, so that it is the embedding.
    pub(super) tied: bool,
    /// What each rotary frequency is divided by, where the file says so.
    pub(super) divisors: Option<Vec<f32>>,
}

/// The shape, checked as one of a `config.json` is.
pub(super) fn read(metadata: &Metadata, found: &Found) -> Result<ModelConfig> {
    let parts = metadata.count("split.count")?.unwrap_or(1);
    ensure!(parts <= 1, "it is one of {parts} parts of a model: join them with `llama-gguf-split --merge`");
    let name = metadata.text("general.architecture")?.context("metadata general.architecture is missing")?;
    let Some((_, model_type, architecture)) = ARCHITECTURES.iter().find(|(known, ..)| *known == name) else {
        let (trained, sampled) = (ARCHITECTURES.map(|(name, ..)| name).join(", "), SAMPLED.join(", "));
        bail!("architecture \"{name}\" cannot be read: {trained} can, and {sampled} to be sampled from")
    };
    let key = |part: &str| format!("{name}.{part}");
    let required = |part: &str| metadata.required(&key(part));
    for part in UNSUPPORTED.into_iter().filter(|part| !experts::may_ask(name, part)) {
        let asked = metadata.number(&key(part))?.filter(|value| *value != 0.0);
        ensure!(asked.is_none(), "{name}.{part} = {} asks for what is not computed here", asked.unwrap_or(0.0));
    }
    let (width, heads) = (required("embedding_length")?, required("attention.head_count")?);
    let [is_latent, is_delta] = [latent::ARCHITECTURE, delta::ARCHITECTURE].map(|other| name == other);
    let size = head_size(metadata, name, width / heads.max(1))?;
    let layers = required("block_count")?;
    ensure!(layers <= found.tensors, "{name}.block_count = {layers}, but there are {} tensors in all", found.tensors);
    let context = required("context_length")?;
    ensure!(context <= LONGEST_CONTEXT, "{name}.context_length = {context} is above {LONGEST_CONTEXT}");
    let epsilon = key("attention.layer_norm_rms_epsilon");
    let theta = metadata.number(&key("rope.freq_base"))?.unwrap_or(10_000.0);
    let intermediate = required("feed_forward_length")?;
    let mut config = json!({
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": found.vocab,
        "hidden_size": width,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.count(&key("attention.head_count_kv"))?.unwrap_or(heads),
        "head_dim": size,
        "max_position_embeddings": context,
        "rms_norm_eps": metadata.number(&epsilon)?.with_context(|| format!("metadata {epsilon} is missing"))?,
        "rope_theta": theta,
        "rope_scaling": if is_latent { Value::Null } else { scaling(metadata, name, theta, size, found.divisors.as_deref())? },
        "tie_word_embeddings": found.tied,
        "bos_token_id": metadata.count("tokenizer.ggml.bos_token_id")?,
        "eos_token_id": ends(metadata)?,
        "hidden_act": "silu",
    });
    if let Value::Object(config) = &mut config {
        config.extend(experts::read(metadata, name, intermediate)?);
        if is_latent {
            config.extend(latent::read(metadata, heads)?);
        }
        if is_delta {
            config.extend(delta::read(metadata, layers, size)?);
        }
    }
    let config: ModelConfig = serde_json::from_value(config)?;
    config.validate()?;
    delta::check(&config)?;
    Ok(config)
}

/// Values of a head, `usual` where the file does not say. Those of values are as many where attention is not latent, and
/// where layers are not delta nets all are rotated.
fn head_size(metadata: &Metadata, name: &str, usual: usize) -> Result<usize> {
    let key = |part: &str| format!("{name}.{part}");
    let size = metadata.count(&key("attention.key_length"))?.unwrap_or(usual);
    let same = match name {
        latent::ARCHITECTURE => &[][..],
        delta::ARCHITECTURE => &["attention.value_length"],
        _ => &["attention.value_length", "rope.dimension_count"],
    };
    for part in same {
        let other = metadata.count(&key(part))?.unwrap_or(size);
        ensure!(other == size, "{name}.{part} = {other} differs from the head size {size}, which is not supported");
    }
    Ok(size)
}

/// The tokens that end a completion.
pub(super) fn ends(metadata: &Metadata) -> Result<Vec<usize>> {
    let end = ["eos", "eot"].map(|which| metadata.count(&format!("tokenizer.ggml.{which}_token_id")));
    let mut ends: Vec<usize> = end.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    ends.dedup();
    Ok(ends)
}

/// What a GGUF file calls the family of a model.
pub(super) fn architecture(config: &ModelConfig) -> Result<&'static str> {
    Ok(match config.family()? {
        Family::Llama => "llama",
        Family::Qwen2 => "qwen2",
        Family::Qwen3 => "qwen3",
        Family::Qwen2Moe => "qwen2moe",
        Family::Qwen3Moe => "qwen3moe",
        Family::Olmoe => "olmoe",
        Family::DeepseekV2 | Family::DeepseekV3 => latent::ARCHITECTURE,
        Family::Qwen3_5 => delta::ARCHITECTURE,
    })
}

/// A shape as metadata.
pub(super) fn entries(config: &ModelConfig) -> Result<Vec<(String, Entry)>> {
    let name = architecture(config)?;
    let heads = config.heads();
    let counts = [
        ("block_count", config.num_hidden_layers),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", heads.query),
        ("vocab_size", config.vocab_size),
    ];
    let of_heads = [
        ("attention.head_count_kv", heads.key_value),
        ("attention.key_length", heads.size),
        ("attention.value_length", heads.size),
        ("rope.dimension_count", 2 * config.rope_frequencies()?.len()),
    ];
    // Those of latent attention are others.
    let of_heads = of_heads.into_iter().filter(|_| name != latent::ARCHITECTURE);
    let numbers =
        [("rope.freq_base", config.rope_base()? as f32), ("attention.layer_norm_rms_epsilon", config.rms_norm_eps)];
    let mut entries = Vec::new();
    for (part, count) in counts.into_iter().chain(of_heads) {
        entries.push((format!("{name}.{part}"), Entry::Count(u32::try_from(count)?)));
    }
    let others = experts::entries(config, name)?.into_iter().chain(latent::entries(config)?);
    let others = others.chain(delta::entries(config)?);
    entries.extend(others.map(|(part, entry)| (format!("{name}.{part}"), entry)));
    entries.extend(numbers.map(|(part, number)| (format!("{name}.{part}"), Entry::Number(number))));
    Ok(entries)
}

/// What each rotary frequency is divided by, where a model stretches them.
pub(super) fn divisors(config: &ModelConfig) -> Result<Option<Vec<f32>>> {
    if config.latent()?.is_some() {
        // They have it as numbers.
        return Ok(None);
    }
    let (base, stretched) = (config.rope_base()?, config.rope_frequencies()?);
    let size = 2 * stretched.len();
    let divide = |(i, frequency): (usize, &f64)| (base.powf(-2.0 * i as f64 / size as f64) / frequency) as f32;
    let divisors: Vec<f32> = stretched.iter().enumerate().map(divide).collect();
    if divisors.iter().all(|divisor| *divisor == 1.0) {
        return Ok(None);
    }
    let name = architecture(config)?;
    ensure!(
        name == "llama" && config.rope_factors()?[0] == 1.0,
        "a stretch of the rotary angles cannot be written for {name}: GGUF files have it for llama"
    );
    Ok(Some(divisors))
}

/// `rope_scaling` of a file.
fn scaling(metadata: &Metadata, name: &str, theta: f64, size: usize, divisors: Option<&[f32]>) -> Result<Value> {
    let kind = metadata.text(&format!("{name}.rope.scaling.type"))?.unwrap_or("none");
    ensure!(kind == "none", "{name}.rope.scaling.type = \"{kind}\" is not supported: none is");
    let Some(divisors) = divisors else { return Ok(Value::Null) };
    ensure!(divisors.len() == size / 2, "rope_freqs.weight has {} values for heads of {size}", divisors.len());
    if divisors.iter().all(|divisor| *divisor == 1.0) {
        return Ok(Value::Null);
    }
    llama3(theta, size, divisors)
}

/// Llama 3's stretch from what it makes of each frequency. Files hold the divisors alone; factor and context follow from
/// them with the two bounds that every model of this kind has, 1 and 4 turns. What then comes out is compared.
fn llama3(theta: f64, size: usize, divisors: &[f32]) -> Result<Value> {
    let (low, high) = (1.0, 4.0);
    let factor = f64::from(divisors.iter().copied().fold(1.0, f32::max));
    let frequency = |i: usize| theta.powf(-2.0 * i as f64 / size as f64);
    // A frequency is kept by the share `(turns - low) / (high - low)`, where the context has `turns` turns of it.
    let contexts = divisors.iter().enumerate().filter_map(|(i, divisor)| {
        let kept = (1.0 / f64::from(*divisor) - 1.0 / factor) / (1.0 - 1.0 / factor);
        (kept > 1e-3 && kept < 1.0 - 1e-3).then(|| (low + kept * (high - low)) * TAU / frequency(i))
    });
    let contexts: Vec<f64> = contexts.collect();
    let context = (contexts.iter().sum::<f64>() / contexts.len().max(1) as f64).round();
    let agrees = divisors.iter().enumerate().all(|(i, divisor)| {
        let kept = ((context * frequency(i) / TAU - low) / (high - low)).clamp(0.0, 1.0);
        ((kept + (1.0 - kept) / factor) * f64::from(*divisor) - 1.0).abs() < 1e-3
    });
    ensure!(
        agrees && context.is_finite() && context >= 1.0,
        "rope_freqs.weight stretches the rotary angles in a way that is not supported: llama3's is"
    );
    Ok(json!({
        "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
        "original_max_position_embeddings": context as u64,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stretch_of_llama_3_is_found_again() {
        for (theta, size, factor, context) in
            [(500_000.0, 128, 8.0, 8192), (500_000.0, 64, 32.0, 8192), (500.0, 16, 8.0, 32)]
        {
            let scaling = json!({ "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": context });
            let config = json!({ "rope_scaling": scaling });
            let stretched = crate::model::rope::frequencies(Some(theta), config.as_object().unwrap(), size, 0).unwrap();
            let divisors = stretched.iter().enumerate();
            let divisors: Vec<f32> =
                divisors.map(|(i, f)| (theta.powf(-2.0 * i as f64 / size as f64) / f) as f32).collect();
            assert_eq!(llama3(theta, size, &divisors).unwrap(), scaling);
        }
        assert!(llama3(10_000.0, 8, &[1.0, 3.0, 2.0, 9.0]).is_err());
    }
}
