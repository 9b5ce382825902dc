//! Gated delta nets: what `parity` and the tests of all families do not see of them.

use std::fs;
use std::path::{Path, PathBuf};

use reckon::batch::MicroBatch;
use reckon::config::LoraConfig;
use reckon::model::{BaseType, CpuOptions, ModelFolder, SaveDtype};
use reckon::ops::LANES;
use reckon::policy::Policy;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use super::gradients::check_gradients;
use super::lora::{saved, trained_with};
use super::models::{DELTA, cpu, cpu_mut, micros, samples, shared_micros, tiny};
use super::parity::fixture;
use super::program::{errors, reckon, small_run, succeeds, text};
use super::resuming::check_resumes;
use super::sampling::check_trainer_agrees;

fn logprobs(policy: &Policy, micros: &[MicroBatch]) -> Vec<f32> {
    cpu(policy).logprobs(None, micros, 1.0).into_iter().flat_map(|stats| stats.logprobs).collect()
}

#[test]
fn a_cache_holds_keys_of_the_layers_that_attend_and_a_state_of_the_others_that_does_not_grow() {
    let shape = cpu(&tiny(DELTA, true)).decoder.cache_shape();
    assert_eq!((shape.layers, shape.block), (1, LANES * 2 * 2 * 16), "keys and values of two heads");
    let (state, tail) = (4 * 6 * LANES, 3 * (2 * 2 * 6 + 4 * 10));
    assert_eq!((shape.states, shape.state), (2, state + tail), "four heads, and what the convolution still sees");
}

#[test]
fn sequences_side_by_side_do_not_see_each_other() {
    let (policy, samples) = (tiny(DELTA, true), samples(9));
    let apart: Vec<f32> = samples.chunks(1).flat_map(|sample| logprobs(&policy, &micros(sample, 1))).collect();
    assert_eq!(logprobs(&policy, &micros(&samples, 10_000)), apart);
    assert_eq!(logprobs(&policy, &shared_micros(&samples, 10_000)), apart, "nor behind a prompt that they share");
}

#[test]
fn what_states_decay_by_stays_fp32_in_a_folder_of_bf16() {
    let policy = tiny(DELTA, true);
    let folder = tempfile::tempdir().unwrap();
    policy.save(folder.path(), SaveDtype::Bf16).unwrap();
    let bytes = fs::read(folder.path().join("model.safetensors")).unwrap();
    let mut exact = 0;
    for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
        let is_exact = ["A_log", "dt_bias", "linear_attn.norm.weight"].iter().any(|end| name.ends_with(end));
        exact += usize::from(is_exact);
        assert_eq!(tensor.dtype(), if is_exact { Dtype::F32 } else { Dtype::BF16 }, "{name}");
    }
    assert_eq!(exact, 6);
}

/// A copy of the fixture of a model that sees images, with a layer that predicts further tokens.
fn whole(folder: &Path) -> PathBuf {
    let (from, to) = (fixture("models/qwen3-5-whole"), folder.join("whole"));
    fs::create_dir(&to).unwrap();
    for file in ["config.json", "generation_config.json", "tokenizer.json"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let bytes = fs::read(from.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let further = ("mtp.fc.weight".to_owned(), tensors.tensor("model.language_model.norm.weight").unwrap());
    let all = tensors.tensors().into_iter().chain([further]);
    fs::write(to.join("model.safetensors"), safetensors::serialize(all, None).unwrap()).unwrap();
    to
}

#[test]
fn of_a_model_that_sees_images_the_text_part_is_read_which_is_said_once_and_written_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, part) = (whole(folder.path()), folder.path().join("part"));
    let output = reckon(&["export", text(&whole), "--out", text(&part)]).output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(errors(&output).matches("text part").count(), 1, "{}", errors(&output));
    let config: Value = serde_json::from_slice(&fs::read(part.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["architectures"], json!([DELTA]));
    assert_eq!((&config["model_type"], &config["tie_word_embeddings"]), (&json!("qwen3_5_text"), &json!(true)));
    assert!(config.get("vision_config").is_none() && config.get("text_config").is_none());
    let bytes = fs::read(part.join("model.safetensors")).unwrap();
    let names = SafeTensors::deserialize(&bytes).unwrap().names().into_iter().map(str::to_owned).collect::<Vec<_>>();
    assert!(names.iter().all(|name| name.starts_with("model.layers.") || name.split('.').count() == 3), "{names:?}");
    let read = |path: &Path| ModelFolder::read(path).unwrap().weights.values;
    assert_eq!(read(&part), read(&whole));
}

#[test]
fn an_adapter_on_what_enters_the_states_learns_and_agrees_with_the_sampler() {
    let targets = ["in_proj_*", "out_proj", "q_proj"].map(str::to_owned).to_vec();
    let config = LoraConfig { rank: 3, alpha: 6.0, targets: Some(targets), ..LoraConfig::default() };
    let folder = saved(DELTA, SaveDtype::F32);
    let mut policy = trained_with(folder.path(), &config, CpuOptions::default());
    assert_eq!(cpu(&policy).parameters().trained_entries().len(), 2 * (2 * 5 + 1));
    check_trainer_agrees(&policy, DELTA);
    check_gradients(&mut policy, DELTA);
}

#[test]
fn a_base_of_eight_bits_computes_states_with_the_sampler_s_bits() {
    let folder = saved(DELTA, SaveDtype::Bf16);
    let base = ModelFolder::read_requantized(folder.path(), Some(BaseType::Q8_0)).unwrap();
    check_trainer_agrees(&Policy::new(base, CpuOptions::default()), DELTA);
}

#[test]
fn an_adapter_whose_targets_are_not_named_is_on_all_projections_but_those_of_rates_and_decays() {
    let folder = saved(DELTA, SaveDtype::F32);
    let policy = trained_with(folder.path(), &LoraConfig::default(), CpuOptions::default());
    let adapter = &cpu(&policy).parameters().adapter().unwrap().layout;
    let names = |part: &str| adapter.modules().filter(|module| module.contains(part)).count();
    assert_eq!((names("linear_attn"), names("self_attn"), names("mlp")), (2 * 3, 4, 3 * 3));
    assert!(adapter.modules().all(|module| !module.ends_with("in_proj_a") && !module.ends_with("in_proj_b")));
    check_trainer_agrees(&policy, DELTA);
}

#[test]
fn layers_that_are_computed_again_and_threads_change_no_bit_of_the_gradient() {
    let mut policy = tiny(DELTA, false);
    let micros = shared_micros(&samples(8), 60);
    let expected = cpu(&policy).gradients(&micros, 0.9, &super::gradients::loss);
    for (threads, recompute) in [(1, true), (3, false), (2, true)] {
        cpu_mut(&mut policy).threads = threads;
        cpu_mut(&mut policy).decoder.recompute = recompute;
        assert_eq!(cpu(&policy).gradients(&micros, 0.9, &super::gradients::loss), expected, "{threads}, {recompute}");
    }
}

/// Writes a shape of some width, a base made of it, and a config of `reckon train` on that.
pub(crate) fn run(folder: &Path, steps: usize, width: usize, more: &str) -> PathBuf {
    let at = |path: &str| format!("{}/examples/{path}", env!("CARGO_MANIFEST_DIR"));
    let shape = json!({
        "architectures": [DELTA], "model_type": "qwen3_5_text", "vocab_size": 224, "eos_token_id": 0,
        "hidden_size": width, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 16, "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "tie_word_embeddings": true,
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
        "linear_value_head_dim": width / 4,
    });
    fs::write(folder.join("shape.json"), shape.to_string()).unwrap();
    let config = fs::read_to_string(at("moe-countdown/base.toml")).unwrap();
    let config = config.replace("examples/moe-countdown/shape.json", text(&folder.join("shape.json")));
    let config = config.replace("examples/countdown/tokenizer.json", &at("countdown/tokenizer.json"));
    fs::write(folder.join("base.toml"), config.replace("tokens_per_step = 4096", "tokens_per_step = 512")).unwrap();
    let base = folder.join("base");
    let sets = ["steps=4", "compute.device=cpu", "optim.balance=0"].map(|set| ["--set", set]).concat();
    succeeds(&[&["sft", text(&folder.join("base.toml")), "--out", text(&base)][..], &sets].concat());
    let more = format!("control = 'coin_flip'\noptim = {{lr = 1e-3}}\ngrpo = {{completions_per_update = 8}}\n{more}");
    let config = small_run(folder, steps, &more);
    let edited = fs::read_to_string(&config).unwrap().replace("builtin:countdown", text(&base));
    fs::write(&config, edited).unwrap();
    config
}

#[test]
fn a_run_agrees_with_its_sampler_and_resumes_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    check_resumes(&run(folder.path(), 4, 32, ""), &[2]);
}
