//! candle-transformers, an implementation by other people, reads our files and must give our logits.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, qwen2, qwen3};
use reckon::model::SaveDtype;
use reckon::ops::attention::Segment;
use reckon::policy::Policy;
use serde_json::{Value, json};

use super::models::{FAMILIES, VOCAB, cpu, tiny_with};

/// Logits of the last of `tokens` by candle.
fn theirs(architecture: &str, policy: &Policy, tokens: &[u32]) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    policy.save(folder.path(), SaveDtype::F32).unwrap();
    let bytes = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    let builder = VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu).unwrap();
    let input = Tensor::new(tokens, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let mut config: Value = serde_json::to_value(&policy.config).unwrap();
    let extra = json!({
        "sliding_window": 4096, "max_window_layers": 2, "use_sliding_window": false, "attention_bias": false,
    });
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let logits = match architecture {
        "Qwen2ForCausalLM" => {
            let config: qwen2::Config = serde_json::from_value(config).unwrap();
            qwen2::ModelForCausalLM::new(&config, builder).unwrap().forward(&input, 0).unwrap()
        }
        "Qwen3ForCausalLM" => {
            let config: qwen3::Config = serde_json::from_value(config).unwrap();
            qwen3::ModelForCausalLM::new(&config, builder).unwrap().forward(&input, 0).unwrap()
        }
        _ => {
            let config: llama::LlamaConfig = serde_json::from_value(config).unwrap();
            let config = config.into_config(false);
            let mut cache = llama::Cache::new(false, DType::F32, &config, &Device::Cpu).unwrap();
            llama::Llama::load(builder, &config).unwrap().forward(&input, 0, &mut cache).unwrap()
        }
    };
    logits.flatten_all().unwrap().to_vec1().unwrap()
}

/// Log-probabilities of every possible next token, by asking the policy for each.
fn ours(policy: &Policy, tokens: &[u32]) -> Vec<f32> {
    let n = tokens.len() as u32;
    let ask = |target: u32| reckon::batch::MicroBatch {
        tokens: tokens.to_vec(),
        positions: (0..n).collect(),
        segments: vec![Segment::alone(0..tokens.len())],
        rows: vec![n - 1],
        targets: vec![target],
        ..Default::default()
    };
    let micros: Vec<_> = (0..VOCAB as u32).map(ask).collect();
    cpu(policy).logprobs(None, &micros, 1.0).into_iter().map(|s| s.logprobs[0]).collect()
}

#[test]
fn logits_agree_with_candle_for_all_families() {
    let tokens: Vec<u32> = (0..21).map(|i| (i * 5 + 3) % VOCAB as u32).collect();
    for architecture in FAMILIES {
        // candle reads a head size of its own for Qwen3 alone; for the others it is width / heads, 8 here.
        let head_dim = if architecture == "Qwen3ForCausalLM" { 16 } else { 8 };
        let policy = tiny_with(architecture, false, head_dim);
        let logits = theirs(architecture, &policy, &tokens);
        let sum = logits.iter().map(|&z| f64::from(z).exp()).sum::<f64>().ln() as f32;
        for (token, (z, l)) in logits.iter().zip(ours(&policy, &tokens)).enumerate() {
            assert!((z - sum - l).abs() < 1e-4, "{architecture}, token {token}: {l}, candle says {}", z - sum);
        }
    }
}
