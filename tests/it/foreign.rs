//! Models of families that are sampled from and not trained say what transformers says (`scripts/other_models.py`), from
//! folders and from GGUF files.

use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Value as Entry};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor, safetensors};
use reckon::foreign::{ForeignModel, Place};
use reckon::policy::Policy;
use serde::Deserialize;
use serde_json::Value;

use super::models::{generate, prompt_of, sampling};
use super::program::{fails, succeeds, text};

const FAMILIES: [&str; 6] = ["gemma2", "gemma3", "glm4", "mistral", "olmo2", "phi3"];

fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/other").join(family)
}

#[derive(Deserialize)]
struct Expected {
    prompt: Vec<u32>,
    greedy: Vec<u32>,
    logprobs: Vec<f32>,
}

/// The model of a family at a path says what transformers says of the family's folder.
fn check(family: &str, path: &Path) {
    let policy = Policy::foreign(ForeignModel::read(path, Place::Cpu).unwrap());
    let expected = std::fs::read(folder(family).join("expected.json")).unwrap();
    let expected: Vec<Expected> = serde_json::from_slice(&expected).unwrap();
    for (index, Expected { prompt, mut greedy, logprobs }) in expected.into_iter().enumerate() {
        greedy.truncate(policy.config.max_position_embeddings - prompt.len());
        let sampling = reckon::rollout::Sampling {
            temperature: 0.0,
            stop_tokens: Vec::new(),
            stop_strings: Vec::new(),
            ..sampling(greedy.len())
        };
        // Several of the same prompt: the cache of one row must not show in the next.
        for completion in generate(&policy, &[prompt_of(&prompt, index as u64)], &sampling, 1, 4) {
            assert_eq!(completion.tokens, greedy, "{family}");
            let far = completion.logprobs.iter().zip(&logprobs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 1e-3, "{family}: log-probabilities differ by {far}");
        }
    }
}

#[test]
fn greedy_text_is_that_of_transformers() {
    FAMILIES.iter().for_each(|family| check(family, &folder(family)));
}

#[test]
fn greedy_text_from_a_gguf_file_is_that_of_transformers_too() {
    let work = tempfile::tempdir().unwrap();
    for family in ["glm4", "phi3"] {
        let path = work.path().join(format!("{family}.gguf"));
        write_gguf(family, &path);
        check(family, &path);
    }
    let (model, out) = (work.path().join("phi3.gguf"), work.path().join("out.gguf"));
    assert!(succeeds(&["sample", "1234", "--model", text(&model), "--max-new-tokens", "5"]).starts_with("1234"));
    let line = fails(&["export", text(&model), "--out", text(&out)]);
    assert!(
        line.contains(
            "\"phi3\" cannot be read: llama, qwen2, qwen3, qwen2moe, qwen3moe, olmoe, deepseek2, qwen35 can, and glm4, phi3 to"
        ),
        "{line}"
    );
}

/// What llama.cpp's converter calls the tensors of these families.
const NAMES: [(&str, &str); 15] = [
    ("model.embed_tokens", "token_embd"),
    ("lm_head", "output"),
    ("model.layers.", "blk."),
    ("model.norm", "output_norm"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("post_mlp_layernorm", "post_ffw_norm"),
    ("post_self_attn_layernorm", "post_attention_norm"),
];

/// The folder of a family as llama.cpp's converter would write it, its values in fp32.
fn write_gguf(family: &str, path: &Path) {
    let read =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(folder(family).join(name)).unwrap()).unwrap() };
    let tensors = safetensors::load(folder(family).join("model.safetensors"), &Device::Cpu).unwrap();
    let tensors: Vec<(String, QTensor)> =
        tensors.into_iter().map(|(name, tensor)| (gguf_name(&name), fp32(&tensor))).collect();
    let metadata = metadata(family, &read("config.json"), &read("tokenizer.json"));
    let metadata: Vec<(&str, &Entry)> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut File::create(path).unwrap(), &metadata, &tensors).unwrap();
}

fn fp32(tensor: &Tensor) -> QTensor {
    QTensor::quantize(tensor, GgmlDType::F32).unwrap()
}

fn gguf_name(name: &str) -> String {
    NAMES.iter().fold(name.to_owned(), |name, (hub, gguf)| name.replace(hub, gguf))
}

fn metadata(family: &str, config: &Value, tokenizer: &Value) -> Vec<(String, Entry)> {
    let count = |key: &str| Entry::U32(config[key].as_u64().unwrap() as u32);
    let head = config["head_dim"].as_u64().unwrap_or(8) as u32;
    let base = config["rope_parameters"]["rope_theta"].as_f64().unwrap() as f32;
    let mut vocab: Vec<(&String, u64)> =
        tokenizer["model"]["vocab"].as_object().unwrap().iter().map(|(t, id)| (t, id.as_u64().unwrap())).collect();
    vocab.sort_by_key(|(_, id)| *id);
    let tokens = vocab.into_iter().map(|(token, _)| Entry::String(token.clone())).collect();
    let of_family = [
        ("block_count", count("num_hidden_layers")),
        ("context_length", count("max_position_embeddings")),
        ("embedding_length", count("hidden_size")),
        ("feed_forward_length", count("intermediate_size")),
        ("attention.head_count", count("num_attention_heads")),
        ("attention.head_count_kv", count("num_key_value_heads")),
        ("attention.key_length", Entry::U32(head)),
        ("attention.value_length", Entry::U32(head)),
        ("attention.layer_norm_rms_epsilon", Entry::F32(config["rms_norm_eps"].as_f64().unwrap() as f32)),
        ("rope.dimension_count", Entry::U32(if family == "glm4" { head / 2 } else { head })),
        ("rope.freq_base", Entry::F32(base)),
    ];
    let mut entries = vec![("general.architecture".to_owned(), Entry::String(family.to_owned()))];
    entries.extend(of_family.map(|(key, value)| (format!("{family}.{key}"), value)));
    entries.extend([
        ("tokenizer.ggml.model".to_owned(), Entry::String("gpt2".to_owned())),
        ("tokenizer.ggml.pre".to_owned(), Entry::String("gpt-2".to_owned())),
        ("tokenizer.ggml.tokens".to_owned(), Entry::Array(tokens)),
        ("tokenizer.ggml.merges".to_owned(), Entry::Array(Vec::new())),
        ("tokenizer.ggml.eos_token_id".to_owned(), count("eos_token_id")),
    ]);
    entries
}

#[test]
fn sample_and_eval_take_them_and_train_refuses_them() {
    let model = folder("phi3");
    let printed = succeeds(&["sample", "1234", "--model", text(&model), "--max-new-tokens", "5", "--device", "cpu"]);
    assert!(printed.starts_with("1234") && printed.trim().len() > 4, "{printed}");
    let work = tempfile::tempdir().unwrap();
    let config = work.path().join("config.toml");
    let path = model.display();
    std::fs::write(
        &config,
        format!(
            "steps = 1\nmodel = {{ path = '{path}' }}\ndata = {{ dataset = 'arithmetic' }}\n\
             rollout = {{ prompts_per_step = 2, group_size = 2, max_new_tokens = 4 }}\neval = {{ problems = 3 }}\n\
             rubric = {{ verifiers = [{{ kind = 'exact' }}] }}\ncompute = {{ device = 'cpu' }}\naudit = {{ rows = 0 }}"
        ),
    )
    .unwrap();
    assert!(succeeds(&["eval", text(&config)]).contains("on 3 problems"));
    let line = fails(&["train", text(&config), "--out", text(&work.path().join("run"))]);
    let expected = "architecture \"Phi3ForCausalLM\" is not known; known are LlamaForCausalLM";
    assert!(line.contains(expected) && line.trim().lines().count() == 1, "{line}");
}
