//! Models in GGUF files. candle, which reads and writes the format by itself, and transformers say what is right.

use std::path::Path;

use reckon::model::files::folder::{read_config, read_tokenizer};
use reckon::model::{Companions, Layout, ModelFolder, Parameters, Weights};
use reckon_datasets::Counted;
use serde_json::{Map, Value, json};

/// Damaged files, and what cannot be read.
mod damaged;
/// Models with delta nets.
mod deltas;
/// Files that Reckon writes, read by candle's own models.
mod exported;
/// Models with experts.
mod mixtures;
/// Files with bytes changed at random.
mod mutated;
/// Bases that stay in the blocks of their file: QLoRA.
mod quantized;
/// Files that candle writes, of every type.
mod read;
/// A real model, where it is at hand.
mod smollm2;
/// Tokenizers of both kinds.
mod tokenizers;

/// The word rules of three published tokenizers, as their files have them.
pub(crate) const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
pub(crate) const QWEN_2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Rows of the embedding: 256 bytes, a few merges, special tokens, and some without a token.
pub(crate) const ROWS: usize = 288;

/// Sizes of a tiny model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) width: usize,
    pub(crate) inner: usize,
    pub(crate) head: usize,
    pub(crate) tied: bool,
}

pub(crate) const SMALL: Size = Size { width: 32, inner: 48, head: 8, tied: true };

/// A byte-level tokenizer as published models have them, of the family's kind.
pub(crate) fn tokenizer(architecture: &str) -> Value {
    let mut vocab: Map<String, Value> =
        crate::recipes::letters().iter().enumerate().map(|(i, c)| (c.to_string(), json!(i))).collect();
    let merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("\u{120}", "t"), ("\u{120}t", "he")];
    for (left, right) in merges {
        let id = vocab.len();
        vocab.insert(format!("{left}{right}"), json!(id));
    }
    let added = ["<|begin|>", "<|end|>", "<|im_end|>", "<tool>"].map(|content| {
        let id = vocab.len();
        vocab.insert(content.to_owned(), json!(id));
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": content != "<tool>"})
    });
    let bytes =
        |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let split =
        |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let stages = match architecture {
        "LlamaForCausalLM" => json!([split(LLAMA_3), bytes(false)]),
        "Qwen2ForCausalLM" => json!([split(QWEN_2), bytes(false)]),
        _ => json!([{"type": "Digits", "individual_digits": true}, bytes(true)]),
    };
    let normalizer = if architecture == "Qwen2ForCausalLM" { json!({"type": "NFC"}) } else { Value::Null };
    let begin = json!({"SpecialToken": {"id": "<|begin|>", "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let processor = json!({"type": "TemplateProcessing", "single": [begin, text], "pair": [begin, text],
        "special_tokens": {"<|begin|>": {"id": "<|begin|>", "ids": [262], "tokens": ["<|begin|>"]}}});
    let begins = architecture == "LlamaForCausalLM";
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": stages},
        "post_processor": if begins { processor } else { Value::Null }, "decoder": bytes(true),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": begins,
            "vocab": vocab, "merges": merges},
    })
}

/// A tiny model with weights far from their start, whose tokenizer a GGUF file can hold.
pub(crate) fn model(architecture: &str, size: Size) -> ModelFolder<Parameters> {
    shaped(architecture, size, &json!({}))
}

/// The same with more in its config.
pub(crate) fn shaped(architecture: &str, size: Size, more: &Value) -> ModelFolder<Parameters> {
    let heads = size.width / size.head;
    let mut config = json!({
        "architectures": [architecture], "vocab_size": ROWS, "hidden_size": size.width,
        "intermediate_size": size.inner, "num_hidden_layers": 2, "num_attention_heads": heads,
        "num_key_value_heads": heads / 2, "head_dim": size.head, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": size.tied, "hidden_act": "silu", "eos_token_id": [263, 264],
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let config = read_config(config.to_string().as_bytes()).unwrap();
    let text = tokenizer(architecture).to_string();
    let mut companions = Companions::new(text.as_bytes());
    let beside = json!({"bos_token": "<|begin|>", "eos_token": "<|end|>", "chat_template": TEMPLATE});
    companions.files.push(("tokenizer_config.json".to_owned(), beside.to_string().into_bytes()));
    let tokenizer = read_tokenizer(text.as_bytes(), &config).unwrap();
    let mut weights = Weights::random(Layout::of(&config).unwrap(), 3);
    let mut noise = Counted::new(&[4]);
    // Matrices say much, and norms stay near 1: with norms of 3 queries and keys are so large that attention is all or
    // nothing, and the last bit of a weight decides which.
    for entry in &weights.layout.entries {
        let scale = if entry.is_matrix() { (3.0, 0.03) } else { (1.0, 0.1) };
        for w in &mut weights.values[entry.range.clone()] {
            *w = *w * scale.0 + scale.1 * noise.normal() as f32;
        }
    }
    ModelFolder { config, tokenizer, companions, weights }.into_parameters()
}

pub(crate) const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}<|im_end|>\n\
    {% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";

/// The bytes of a GGUF file of a model.
pub(crate) fn written(model: &ModelFolder<Parameters>, mix: reckon::model::files::gguf::Mix) -> Vec<u8> {
    let mut bytes = Vec::new();
    model.save_gguf(&mut bytes, "tiny", mix, 2).unwrap();
    bytes
}

/// Puts a file of bytes into a folder.
pub(crate) fn put(folder: &Path, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    path
}
