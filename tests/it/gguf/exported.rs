//! What Reckon writes is read by candle's own models, and by Reckon again.

use std::io::Cursor;

use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::{Device, Tensor};
use candle_transformers::models::{quantized_llama, quantized_qwen2, quantized_qwen3};
use reckon::model::files::Source;
use reckon::model::files::gguf::Mix;
use reckon::model::{CpuModel, Decoder, Expectations, ModelFolder, Parameters};
use reckon::ops::linear::Precision;
use reckon::prompt::jinja::{ChatTemplate, Conversation, Message};

use super::{ROWS, SMALL, Size, model, put, written};
use crate::models::FAMILIES;
use crate::program::{fails, succeeds, text};

/// Log-probabilities behind the last of `tokens`, by candle from the file.
fn theirs(architecture: &str, bytes: &[u8], tokens: &[u32]) -> Vec<f32> {
    let (mut reader, device) = (Cursor::new(bytes), Device::Cpu);
    let mut content = Content::read(&mut reader).unwrap();
    // Else candle computes Qwen3 in fp16.
    content.metadata.insert("general.dtype".to_owned(), Value::U32(0));
    let input = Tensor::new(tokens, &device).unwrap().unsqueeze(0).unwrap();
    let logits = match architecture {
        "Qwen2ForCausalLM" => {
            quantized_qwen2::ModelWeights::from_gguf(content, &mut reader, &device).unwrap().forward(&input, 0)
        }
        "Qwen3ForCausalLM" => {
            quantized_qwen3::ModelWeights::from_gguf(content, &mut reader, &device).unwrap().forward(&input, 0)
        }
        _ => quantized_llama::ModelWeights::from_gguf(content, &mut reader, &device).unwrap().forward(&input, 0),
    };
    let logits: Vec<f32> = logits.unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let sum = logits.iter().map(|&z| f64::from(z).exp()).sum::<f64>().ln() as f32;
    logits.into_iter().map(|z| z - sum).collect()
}

pub(super) fn expectations(model: &ModelFolder<Parameters>, tokens: &[u32]) -> Expectations {
    let (decoder, weights) = (Decoder::new(&model.config, false), model.weights.clone());
    Expectations::of(&CpuModel::new(decoder, weights, 1, Precision::Fp32), tokens)
}

pub(super) fn values(model: &ModelFolder<Parameters>) -> Vec<f32> {
    let mut all = Vec::new();
    for entry in model.weights.entries() {
        let mut values = vec![0.0; entry.range.len()];
        model.weights.values(entry, 0..values.len(), &mut values).unwrap();
        all.extend(values);
    }
    all
}

#[test]
fn candle_computes_from_the_file_what_the_model_computes() {
    let tokens: Vec<u32> = (0..21).map(|i| (i * 37 + 3) % ROWS as u32).collect();
    for architecture in FAMILIES {
        // candle takes the width of the heads from the file for Qwen3 alone.
        let head = if architecture == "Qwen3ForCausalLM" { 16 } else { 8 };
        for tied in [true, false] {
            let model = model(architecture, Size { head, tied, ..SMALL });
            let ours = expectations(&model, &tokens);
            let theirs = theirs(architecture, &written(&model, Mix::F32), &tokens);
            let last = ours.behind(tokens.len() - 1);
            let far = last.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 1e-5, "{architecture}, tied {tied}: log-probabilities differ by {far}");
        }
    }
}

#[test]
fn an_exact_file_gives_back_every_bit_and_all_that_stood_beside_the_weights() {
    for architecture in FAMILIES {
        let folder = tempfile::tempdir().unwrap();
        let model = model(architecture, SMALL);
        let path = put(folder.path(), &written(&model, Mix::F32));
        let read = ModelFolder::read_frozen(&path).unwrap().into_parameters();
        assert_eq!(values(&read), values(&model), "{architecture}");
        model.compare_with(&read).unwrap();
        let shape = |model: &ModelFolder<Parameters>| {
            let config = &model.config;
            let heads = config.heads();
            let sizes = [heads.query, heads.key_value, heads.size, config.max_position_embeddings];
            (sizes, config.rms_norm_eps, config.eos_token_id.clone())
        };
        assert_eq!(shape(&read), shape(&model));
        assert_eq!(read.config.rope_frequencies().unwrap(), model.config.rope_frequencies().unwrap());
        let render = |model: &ModelFolder<Parameters>| {
            let messages = vec![Message::new("user", "hello")];
            let template = ChatTemplate::of(&model.companions).unwrap().unwrap();
            template.render(&Conversation { messages, add_generation_prompt: true, ..Conversation::default() }).unwrap()
        };
        assert_eq!(render(&read), render(&model));
        let ids = |model: &ModelFolder<Parameters>, text: &str| {
            model.tokenizer.encode(text, true).unwrap().get_ids().to_vec()
        };
        for text in ["hello the 123 <tool> x<|im_end|>", "", "it's\n\n  caf\u{e9} e\u{301}"] {
            assert_eq!(ids(&read, text), ids(&model, text), "{architecture} {text:?}");
        }
    }
}

#[test]
fn the_stretch_of_llama_3_goes_through_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = model("LlamaForCausalLM", Size { head: 16, ..SMALL });
    let scaling = serde_json::json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64 });
    model.config.other.insert("rope_scaling".into(), scaling);
    model.config.rope_theta = Some(500.0);
    let path = put(folder.path(), &written(&model, Mix::F32));
    let read = ModelFolder::read_frozen(&path).unwrap();
    for (a, b) in read.config.rope_frequencies().unwrap().iter().zip(model.config.rope_frequencies().unwrap()) {
        assert!((a / b - 1.0).abs() < 1e-6, "{a} {b}");
    }
}

#[test]
fn fewer_bits_are_smaller_and_stay_near() {
    let tokens: Vec<u32> = (0..100).map(|i| (i * i * 7 + 3) % ROWS as u32).collect();
    let size = Size { width: 256, inner: 512, head: 32, tied: true };
    let model = model("LlamaForCausalLM", size);
    let exact = expectations(&model, &tokens);
    let mut last = usize::MAX;
    for (mix, kl) in [
        (Mix::F32, 0.0),
        (Mix::F16, 1e-6),
        (Mix::Q8_0, 1e-3),
        (Mix::Q6K, 5e-3),
        (Mix::Q5KM, 2e-2),
        (Mix::Q4KM, 5e-2),
        (Mix::Q4_0, 1e-1),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let bytes = written(&model, mix);
        assert!(bytes.len() < last, "{mix:?} has {} bytes, the one before {last}", bytes.len());
        last = bytes.len();
        let read = ModelFolder::read_frozen(&put(folder.path(), &bytes)).unwrap().into_parameters();
        let near = exact.compare(&expectations(&read, &tokens));
        assert!(near.kl <= kl && near.kl >= 0.0, "{mix:?}: {near:?}");
    }
}

#[test]
fn every_number_of_threads_writes_the_same_file() {
    let model = model("LlamaForCausalLM", Size { width: 256, inner: 512, head: 32, tied: false });
    let write = |threads| {
        let mut bytes = Vec::new();
        model.save_gguf(&mut bytes, "tiny", Mix::Q4KM, threads).unwrap();
        bytes
    };
    assert_eq!(write(1), write(3));
}

#[test]
fn the_command_writes_reads_back_and_says_how_near_the_file_is() {
    let folder = tempfile::tempdir().unwrap();
    let (model_folder, out) = (folder.path().join("model"), folder.path().join("out.gguf"));
    std::fs::create_dir(&model_folder).unwrap();
    model("Qwen2ForCausalLM", SMALL).save_merged(&model_folder, reckon::model::SaveDtype::F32).unwrap();
    let export = |kind: &str| succeeds(&["export", text(&model_folder), "--gguf", kind, "--out", text(&out)]);
    let printed = export("f32");
    assert!(printed.contains("as f32") && printed.contains("128 held-out tokens: mean KL 0.00e0, 100.0%"), "{printed}");
    let printed = export("q8_0");
    assert!(printed.contains("as q8_0") && printed.contains("of the greedy tokens are equal"), "{printed}");
    let sample =
        |model: &std::path::Path| succeeds(&["sample", "hello", "--model", text(model), "--max-new-tokens", "9"]);
    assert!(sample(&out).starts_with("hello"));
    export("f32");
    assert_eq!(sample(&out), sample(&model_folder), "the same model gives the same text");
    // And back into a folder.
    let back = folder.path().join("back");
    succeeds(&["export", text(&out), "--out", text(&back)]);
    assert_eq!(sample(&back), sample(&model_folder));
}

#[test]
fn what_a_gguf_file_cannot_hold_is_refused_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("x.gguf");
    for (arguments, expected) in [
        (
            &["builtin:countdown", "--gguf", "q8_0", "--out", text(&out)][..],
            "tokenizer of type WordLevel cannot be written",
        ),
        (&["builtin:countdown", "--gguf", "q8_0", "--out", "x"], "does not end in .gguf"),
    ] {
        let line = fails(&[&["export"], arguments].concat());
        assert!(line.contains(expected) && line.trim().lines().count() == 1, "{line}");
        assert!(!out.exists());
    }
}
