//! SmolLM2-135M-Instruct from its Q4_1 file, beside what transformers says of the same file
//! (`scripts/gguf_fixtures.py`). `scripts/smollm2 target/smollm2` fetches the model; without it this is skipped.

use std::path::PathBuf;

use reckon::batch::MicroBatch;
use reckon::model::files::folder::read_shape;
use reckon::model::{Companions, CpuOptions, ModelFolder};
use reckon::ops::attention::Segment;
use reckon::policy::Policy;
use reckon::prompt::jinja::{ChatTemplate, Conversation};
use reckon_datasets::Plain;
use serde::Deserialize;
use serde_json::Value;

use crate::models::{cpu, generate_greedily};
use crate::program::{records, succeeds, text};

/// The file, where it is at hand.
fn file() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/smollm2");
    let path = root.join("SmolLM2-135M-Instruct.Q4_1.gguf");
    if !path.exists() {
        eprintln!("skipped: {} is not here; scripts/smollm2 target/smollm2 fetches it", path.display());
    }
    path.exists().then_some(path)
}

#[derive(Deserialize)]
struct Expected {
    shape: serde_json::Map<String, Value>,
    template: String,
    conversations: Value,
    rendered: Vec<String>,
    texts: Vec<(String, Vec<u32>)>,
    prompt: Vec<u32>,
    greedy: Vec<u32>,
    logprobs: Vec<f32>,
}

fn expected() -> Expected {
    let bytes = include_bytes!("../../fixtures/gguf/smollm2.json");
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn its_shape_is_that_of_transformers() {
    let Some(path) = file() else { return };
    let ours = serde_json::to_value(read_shape(&path).unwrap()).unwrap();
    for (key, value) in expected().shape {
        let same = match (ours[&key].as_f64(), value.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-6 * b.abs(),
            _ => ours[&key] == value,
        };
        assert!(same, "{key} is {}, transformers says {value}", ours[&key]);
    }
}

#[test]
fn its_template_and_tokens_are_those_of_transformers_to_the_letter() {
    let Some(path) = file() else { return };
    let expected = expected();
    let companions = Companions::read(&path).unwrap();
    assert_eq!(companions.file("chat_template.jinja"), Some(expected.template.as_bytes()));
    let template = ChatTemplate::of(&companions).unwrap().unwrap();
    for (messages, rendered) in expected.conversations.as_array().unwrap().iter().zip(&expected.rendered) {
        let asked = serde_json::json!({ "messages": messages, "add_generation_prompt": true });
        let conversation = Conversation::deserialize(minijinja::Value::from_serialize(Plain(&asked))).unwrap();
        assert_eq!(&template.render(&conversation).unwrap(), rendered);
    }
    let json = std::str::from_utf8(companions.file("tokenizer.json").unwrap()).unwrap();
    let tokenizer: tokenizers::Tokenizer = json.parse().unwrap();
    for (text, ids) in &expected.texts {
        assert_eq!(tokenizer.encode(text.as_str(), false).unwrap().get_ids(), ids, "{text:?}");
        assert_eq!(&tokenizer.decode(ids, false).unwrap(), text);
    }
}

/// Log-probabilities of `tokens` behind `prompt`.
fn logprobs(policy: &Policy, prompt: &[u32], tokens: &[u32]) -> Vec<f32> {
    let all = [prompt, tokens].concat();
    let (length, begin) = (all.len() - 1, prompt.len() - 1);
    let micro = MicroBatch {
        tokens: all[..length].to_vec(),
        positions: (0..length as u32).collect(),
        segments: vec![Segment::alone(0..length)],
        rows: (begin as u32..length as u32).collect(),
        targets: tokens.to_vec(),
        ..MicroBatch::default()
    };
    cpu(policy).logprobs(None, &[micro], 1.0).remove(0).logprobs
}

#[test]
fn its_text_and_log_probabilities_are_those_of_transformers() {
    let Some(path) = file() else { return };
    let Expected { prompt, greedy, logprobs: theirs, .. } = expected();
    let policy =
        Policy::new(ModelFolder::read_frozen(&path).unwrap(), CpuOptions { threads: 2, ..CpuOptions::default() });
    assert_eq!(greedy.len(), 256);
    let ours = logprobs(&policy, &prompt, &greedy);
    let far = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < 1e-4, "log-probabilities differ by {far}");
    assert_eq!(generate_greedily(&policy, &prompt, 256).tokens, greedy);
}

#[test]
fn it_goes_through_files_and_folders_and_says_the_same() {
    let Some(path) = file() else { return };
    let Expected { prompt, greedy, .. } = expected();
    let read = |path: &std::path::Path| {
        let options = CpuOptions { threads: 2, ..CpuOptions::default() };
        Policy::new(ModelFolder::read_frozen(path).unwrap(), options)
    };
    let exact = logprobs(&read(&path), &prompt, &greedy);
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("saved");
    succeeds(&["export", text(&path), "--out", text(&saved)]);
    assert_eq!(logprobs(&read(&saved), &prompt, &greedy), exact, "a folder in fp32 holds every bit");
    std::fs::remove_dir_all(&saved).unwrap();
    for (mix, most) in [("f16", 2e-3), ("q8_0", 0.1)] {
        let out = folder.path().join("out.gguf");
        let printed = succeeds(&["export", text(&path), "--gguf", mix, "--out", text(&out)]);
        assert!(printed.contains("held-out tokens: mean KL"), "{printed}");
        let ours = logprobs(&read(&out), &prompt, &greedy);
        let mean = ours.iter().zip(&exact).map(|(a, b)| (a - b).abs()).sum::<f32>() / exact.len() as f32;
        assert!(mean < most, "{mix}: log-probabilities differ by {mean} in the mean");
    }
}

#[test]
fn it_is_trained_all_weights_or_an_adapter_of_it() {
    let Some(path) = file() else { return };
    for (name, more) in [("full", ""), ("lora", "lora = { rank = 4, alpha = 8, targets = ['*_proj'] }\n")] {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "steps = 2\ncontrol = 'coin_flip'\nmodel = {{ path = '{}' }}\ndata = {{ dataset = 'arithmetic' }}
            prompt = {{ template = 'chat' }}\ncompute = {{ device = 'cpu' }}\naudit = {{ rows = 0 }}
            rollout = {{ prompts_per_step = 2, group_size = 4, max_new_tokens = 8 }}\neval = {{ problems = 0 }}
            rubric = {{ verifiers = [{{ kind = 'exact' }}] }}\nsave = {{ every = 2 }}\n{more}",
            path.display()
        );
        let file = folder.path().join("config.toml");
        std::fs::write(&file, config).unwrap();
        let run = folder.path().join("run");
        succeeds(&["train", text(&file), "--out", text(&run)]);
        let mismatches: Vec<f64> = records(&run).iter().filter_map(|record| record.get("policy/mismatch_kl")).collect();
        assert_eq!(mismatches, [0.0, 0.0], "{name}: sampler and trainer agree in both steps");
        let out = folder.path().join("out.gguf");
        let printed = succeeds(&["export", text(&run), "--gguf", "q8_0", "--out", text(&out)]);
        assert!(printed.contains("as q8_0"), "{printed}");
    }
}
