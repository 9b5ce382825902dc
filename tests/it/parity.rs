//! Reckon computes what transformers computes. `scripts/make-fixtures.py` wrote the expected values.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use reckon::batch::{Beside, MicroBatch, TokenLosses, TokenStats};
use reckon::model::cpu::decoder::{Context, Input};
use reckon::model::cpu::workspace::Keep;
use reckon::model::files::peft;
use reckon::model::{ModelFolder, Workspace};
use reckon::ops::attention::Segment;
use reckon::ops::team::Team;
use reckon::policy::Policy;
use reckon::prompt::jinja::{ChatTemplate, Conversation};
use reckon::rollout::Sampling;
use reckon_datasets::Plain;
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::Value;

use super::models::{cpu, generate_greedily, prompt_of};

const MODELS: [&str; 10] = [
    "llama",
    "llama-tied",
    "qwen2",
    "qwen3",
    "qwen2-moe",
    "qwen3-moe",
    "olmoe",
    "deepseek-v2",
    "deepseek-v3",
    "qwen3-5",
];

pub(crate) fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

#[derive(Deserialize)]
struct Tokens {
    sequences: Vec<Vec<u32>>,
    prompt: Vec<u32>,
    greedy: Vec<u32>,
}

/// What transformers says of one model.
struct Expected {
    tokens: Tokens,
    tensors: BTreeMap<String, Vec<f32>>,
}

fn tensors(file: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = fs::read(file).unwrap();
    let values = |data: &[u8]| data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    tensors.into_iter().map(|(name, tensor)| (name, values(tensor.data()))).collect()
}

fn load(name: &str) -> (Policy, Expected) {
    let folder = fixture("models").join(name);
    let tokens = serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let tensors = tensors(&folder.join("expected.safetensors"));
    (
        Policy::new(ModelFolder::read(&folder).unwrap(), reckon::model::CpuOptions::default()),
        Expected { tokens, tensors },
    )
}

/// An adapter that peft made, on the model of the same name, and what peft says of both.
fn load_adapter(name: &str) -> (Policy, BTreeMap<String, Vec<f32>>) {
    let (base, adapter) = (fixture("models").join(name), fixture("adapters").join(name));
    let model = ModelFolder::read_frozen(&base).unwrap();
    let model = model.adapted(|base| peft::read(&adapter, &base.layout)).unwrap();
    (Policy::new(model, reckon::model::CpuOptions::default()), tensors(&adapter.join("expected.safetensors")))
}

/// Logits `(T, V)` of a whole sequence at once.
fn logits(policy: &Policy, tokens: &[u32]) -> Vec<f32> {
    let team = &Team::alone();
    let weights = cpu(policy).weights(team);
    let positions: Vec<u32> = (0..tokens.len() as u32).collect();
    let (input, segments) = (Input::new(tokens, &positions), [Segment::alone(0..tokens.len())]);
    let mut workspace = Workspace::default();
    cpu(policy).decoder.forward(team, &weights, input, Context::Segments(&segments), Keep::Nothing, &mut workspace);
    let mut logits = vec![0f32; tokens.len() * policy.config.vocab_size];
    weights.lm_head.forward(team, &workspace.hidden, &mut logits, reckon::ops::linear::Epilogue::None);
    logits
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn logits_agree_within_a_ten_thousandth() {
    for name in MODELS {
        let (policy, expected) = load(name);
        let difference =
            largest_difference(&logits(&policy, &expected.tokens.sequences[0]), &expected.tensors["logits"]);
        assert!(difference < 1e-4, "{name}: logits differ by {difference}");
    }
}

#[test]
fn the_text_part_of_a_model_that_sees_images_has_the_logits_of_the_whole() {
    let folder = fixture("models/qwen3-5-whole");
    let policy = Policy::new(ModelFolder::read(&folder).unwrap(), reckon::model::CpuOptions::default());
    let sequence = load("qwen3-5").1.tokens.sequences.remove(0);
    let difference =
        largest_difference(&logits(&policy, &sequence), &tensors(&folder.join("expected.safetensors"))["logits"]);
    assert!(difference < 1e-4, "logits differ by {difference}");
}

#[test]
fn greedy_text_of_256_tokens_is_equal() {
    for name in MODELS {
        let (policy, Expected { tokens, .. }) = load(name);
        assert_eq!(tokens.greedy.len(), 256);
        let ours = generate_greedily(&policy, &tokens.prompt, 256);
        assert_eq!(ours.tokens, tokens.greedy, "{name}");
        assert_eq!(ours.text, policy.tokenizer.decode(&tokens.greedy, false).unwrap(), "{name}");
    }
}

#[test]
fn every_weight_has_the_gradient_that_autograd_gives() {
    for name in MODELS {
        let (policy, Expected { tokens, tensors }) = load(name);
        check_gradients(&policy, &tokens.sequences, &tensors, name);
    }
}

#[test]
fn logits_and_gradients_of_adapters_are_those_of_peft() {
    for name in ["llama", "qwen2", "qwen3"] {
        let sequences = load(name).1.tokens.sequences;
        let (policy, tensors) = load_adapter(name);
        let difference = largest_difference(&logits(&policy, &sequences[0]), &tensors["logits"]);
        assert!(difference < 1e-4, "{name}: logits differ by {difference}");
        check_gradients(&policy, &sequences, &tensors, name);
        assert_eq!(
            tensors.len(),
            1 + cpu(&policy).parameters().trained_entries().len(),
            "{name}: all that is trained is compared"
        );
    }
}

#[test]
fn the_auxiliary_loss_and_its_gradients_are_those_of_transformers() {
    for name in ["qwen2-moe", "qwen3-moe", "olmoe"] {
        let (policy, Expected { tokens, .. }) = load(name);
        let theirs = tensors(&fixture("models").join(name).join("auxiliary.safetensors"));
        let (model, micros) = (cpu(&policy), [packed(&tokens.sequences)]);
        let balance = model.load_balance(&micros);
        let (loss, expected) = (balance.loss(), f64::from(theirs["loss"][0]));
        assert!((loss - expected).abs() < 1e-5 * expected, "{name}: {loss}, not {expected}");
        let nothing = |micro: &MicroBatch, _: &TokenStats| TokenLosses {
            gradient: vec![0.0; micro.targets.len()],
            ..TokenLosses::default()
        };
        let slopes = balance.slopes(1.0);
        let beside = Beside { balance_slopes: Some(&slopes), ..Beside::default() };
        let (gradient, _) = model.taught(&micros, 1.0, &nothing, beside);
        let mut compared = 0;
        for entry in model.parameters().trained_entries() {
            let ours = &gradient[entry.range.clone()];
            // What lies behind the last router has none.
            let Some(theirs) = theirs.get(&format!("gradient.{}", entry.name)) else {
                assert!(ours.iter().all(|g| *g == 0.0), "{name}: {} has a gradient", entry.name);
                continue;
            };
            let largest = theirs.iter().fold(0f32, |a, g| a.max(g.abs()));
            let difference = largest_difference(ours, theirs);
            let noise = if entry.name.ends_with("k_proj.bias") { 1e-6 } else { 0.0 };
            let what = format!("{name}: {} differs by {difference} of {largest}", entry.name);
            assert!(difference <= 1e-3 * largest + noise, "{what}");
            compared += usize::from(entry.name.ends_with("mlp.gate.weight"));
        }
        assert_eq!(compared, model.decoder.routed_layers.len(), "{name}: every router is compared");
    }
}

/// Asserts that everything that is trained has the gradient of `tensors`, within a thousandth of its largest value.
fn check_gradients(policy: &Policy, sequences: &[Vec<u32>], tensors: &BTreeMap<String, Vec<f32>>, name: &str) {
    let loss = |micro: &MicroBatch, _: &TokenStats| TokenLosses {
        gradient: micro.loss_weights.iter().map(|w| -w).collect(),
        ..TokenLosses::default()
    };
    let (gradient, _) = cpu(policy).gradients(&[packed(sequences)], 1.0, &loss);
    for entry in cpu(policy).parameters().trained_entries().iter().filter(|entry| !entry.is_choice_bias()) {
        let theirs = &tensors[&format!("gradient.{}", entry.name)];
        let largest = theirs.iter().fold(0f32, |a, g| a.max(g.abs()));
        let difference = largest_difference(&gradient[entry.range.clone()], theirs);
        // The gradient of a key's bias is zero but for rounding.
        let noise = if entry.name.ends_with("k_proj.bias") { 1e-6 } else { 0.0 };
        assert!(difference <= 1e-3 * largest + noise, "{name}: {} differs by {difference} of {largest}", entry.name);
    }
}

/// All next-token targets of the sequences in one micro-batch.
fn packed(sequences: &[Vec<u32>]) -> MicroBatch {
    let count: usize = sequences.iter().map(|s| s.len() - 1).sum();
    let mut micro = MicroBatch { loss_weights: vec![1.0 / count as f32; count], ..Default::default() };
    for sequence in sequences {
        let n = sequence.len() as u32 - 1;
        micro.tokens.extend(&sequence[..n as usize]);
        micro.positions.extend(0..n);
        micro.targets.extend(&sequence[1..]);
        micro.segments.push(Segment::alone(micro.tokens.len() - n as usize..micro.tokens.len()));
    }
    micro.rows = (0..count as u32).collect();
    micro
}

#[test]
fn greedy_sampling_through_the_cache_equals_the_full_forward_for_512_tokens() {
    for name in MODELS {
        let (policy, Expected { tokens, .. }) = load(name);
        let sampled = generate_greedily(&policy, &tokens.prompt, 512).tokens;
        assert_eq!(sampled.len(), 512);
        let whole = [tokens.prompt.as_slice(), &sampled].concat();
        let logits = logits(&policy, &whole[..whole.len() - 1]);
        let rows = logits.chunks_exact(policy.config.vocab_size).skip(tokens.prompt.len() - 1);
        let likeliest = |z: &[f32]| (0..z.len()).fold(0, |best, i| if z[i] > z[best] { i } else { best }) as u32;
        assert_eq!(rows.map(likeliest).collect::<Vec<_>>(), sampled, "{name}");
    }
}

#[derive(Deserialize)]
struct Chat {
    /// On which the templates were rendered.
    date: String,
    conversations: Vec<Asked>,
    rendered: BTreeMap<String, Vec<Value>>,
}

#[derive(Deserialize)]
struct Asked {
    #[serde(flatten)]
    conversation: Conversation,
    /// Whether the last message is to be gone on from.
    #[serde(default)]
    unfinished: bool,
}

#[test]
fn chat_templates_render_as_transformers_renders_them() {
    let chat: Value = serde_json::from_slice(&fs::read(fixture("chat/expected.json")).unwrap()).unwrap();
    let chat = Chat::deserialize(minijinja::Value::from_serialize(Plain(&chat))).unwrap();
    assert_eq!((chat.rendered.len(), chat.conversations.len()), (7, 14));
    let special = [("bos_token", "<s>"), ("eos_token", "</s>")].map(|(name, text)| (name.to_owned(), text.into()));
    for (name, rendered) in &chat.rendered {
        let source = fs::read_to_string(fixture(&format!("chat/{name}.jinja"))).unwrap();
        let template = ChatTemplate::new(&source, special.clone().into()).unwrap().dated(chat.date.parse().unwrap());
        for (number, (Asked { conversation, unfinished }, expected)) in
            chat.conversations.iter().zip(rendered).enumerate()
        {
            let ours =
                if *unfinished { template.render_unfinished(conversation) } else { template.render(conversation) };
            match (ours, expected["text"].as_str(), expected["error"].as_str()) {
                (Ok(text), Some(expected), _) => assert_eq!(text, expected, "{name} {number}"),
                (Err(error), _, Some(expected)) => assert!(error.to_string().contains(expected), "{name}: {error}"),
                (ours, ..) => panic!("{name} {number}: {ours:?}, transformers says {expected}"),
            }
        }
    }
}

#[test]
fn a_sample_ends_at_any_of_several_end_tokens() {
    let (policy, _) = load("qwen2");
    assert_eq!(policy.config.eos_token_id, [47, 46]);
    let mut ends = std::collections::BTreeSet::new();
    let sampling = Sampling { stop_tokens: policy.config.eos_token_id.clone(), ..super::models::sampling(200) };
    for completion in super::models::generate(&policy, &[prompt_of(&[1, 2], 0), prompt_of(&[3], 1)], &sampling, 1, 8) {
        ends.extend(completion.tokens.last().filter(|t| [46, 47].contains(*t)).copied());
    }
    assert_eq!(ends.into_iter().collect::<Vec<_>>(), [46, 47]);
}
