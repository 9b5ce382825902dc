//! Models with experts and with latent attention: what `parity` and the tests of all families do not see of them.

use std::fs;
use std::path::{Path, PathBuf};

use reckon::model::layout::{Attention, LatentQuery, Mlp};
use reckon::model::{BaseType, CpuOptions, Layout, ModelFolder, SaveDtype, Weights};
use reckon::ops::LANES;
use reckon::policy::{Learner, Policy};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use super::gradients::loss;
use super::lora::{all, saved, trained_with};
use super::models::{
    MIXTURES, cpu, cpu_learner, cpu_mut, generate, prompts, rising, samples, sampling, shared_micros, tiny, tiny_of,
};
use super::program::{records, small_run, succeeds, text};
use super::resuming::check_resumes;

const V3: &str = "DeepseekV3ForCausalLM";

fn logprobs(policy: &Policy) -> Vec<f32> {
    let stats = cpu(policy).logprobs(None, &shared_micros(&samples(6), 60), 1.0);
    stats.into_iter().flat_map(|stats| stats.logprobs).collect()
}

/// Where the bias of the choice of a layer lies.
fn choice_bias(policy: &Policy, layer: usize) -> std::ops::Range<usize> {
    match &Layout::of(&policy.config).unwrap().layers[layer].mlp {
        Mlp::Experts(experts) => experts.bias.clone().unwrap().range,
        Mlp::Dense(_) => panic!("layer {layer} is dense"),
    }
}

#[test]
fn the_cache_of_latents_holds_one_latent_and_its_rotated_part_a_token_and_layer() {
    for architecture in ["DeepseekV2ForCausalLM", V3] {
        let shape = cpu(&tiny(architecture, true)).decoder.cache_shape();
        assert_eq!((shape.block, shape.states), (LANES * (20 + 8), 0), "{architecture}");
    }
    let grouped = cpu(&tiny("Qwen3MoeForCausalLM", true)).decoder.cache_shape().block;
    assert_eq!(grouped, LANES * 2 * 2 * 16, "keys and values of two heads");
}

#[test]
fn a_rotation_of_neighbours_is_one_of_halves_with_the_rows_in_another_order() {
    let mut halves = tiny(V3, true);
    let expected = logprobs(&halves);
    let layout = Layout::of(&halves.config).unwrap();
    // Rows of each query head, and those beside the latents: 12 or 20 values stay, 8 are rotated.
    let turn = |values: &mut [f32], first: usize, width: usize| {
        let rows = values[first * width..(first + 8) * width].to_vec();
        for (to, from) in [0, 2, 4, 6, 1, 3, 5, 7].into_iter().enumerate() {
            values[(first + to) * width..][..width].copy_from_slice(&rows[from * width..][..width]);
        }
    };
    for layer in &layout.layers {
        let Attention::Latent(attention) = &layer.attention else { panic!("latent attention") };
        let LatentQuery::Compressed { up, .. } = &attention.query else { panic!("compressed queries") };
        let values = cpu_mut(&mut halves).trainable().values;
        (0..4).for_each(|head| turn(&mut values[up.range.clone()], head * 20 + 12, up.inputs));
        turn(&mut values[attention.compress.range.clone()], 20, attention.compress.inputs);
    }
    halves.config.other.insert("rope_interleave".into(), json!(false));
    let weights = Weights { layout, values: cpu(&halves).parameters().trained_values().to_vec() };
    let Policy { config, tokenizer, companions, .. } = halves;
    let halves = Policy::new(ModelFolder { config, tokenizer, companions, weights }, CpuOptions::default());
    let far = logprobs(&halves).iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < 1e-4, "{far}");
}

#[test]
fn the_second_version_normalises_no_weights_whatever_its_file_says() {
    let expected = logprobs(&tiny("DeepseekV2ForCausalLM", true));
    let mut asked = tiny("DeepseekV2ForCausalLM", true);
    asked.config.other.insert("norm_topk_prob".into(), json!(true));
    let router = asked.config.experts().unwrap().unwrap().router;
    assert_eq!(Some(router), cpu(&asked).decoder.router);
    let mut scaled = tiny("DeepseekV2ForCausalLM", true);
    cpu_mut(&mut scaled).decoder.router.as_mut().unwrap().normalised = true;
    assert_ne!(logprobs(&scaled), expected, "it would show");
}

#[test]
fn biases_of_a_choice_stay_fp32_in_a_folder_of_bf16_and_come_back_to_the_bit() {
    let mut policy = tiny(V3, true);
    let place = choice_bias(&policy, 1);
    let biases: Vec<f32> = (0..6).map(|expert| 0.1 + 1e-6 * expert as f32).collect();
    cpu_mut(&mut policy).trainable().values[place.clone()].copy_from_slice(&biases);
    let folder = tempfile::tempdir().unwrap();
    policy.save(folder.path(), SaveDtype::Bf16).unwrap();
    let bytes = fs::read(folder.path().join("model.safetensors")).unwrap();
    for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
        let expected = if name.ends_with("e_score_correction_bias") { Dtype::F32 } else { Dtype::BF16 };
        assert_eq!(tensor.dtype(), expected, "{name}");
    }
    assert_eq!(ModelFolder::read(folder.path()).unwrap().weights.values[place], biases);
}

#[test]
fn layers_that_predict_further_tokens_are_neither_read_nor_written() {
    let folder = tempfile::tempdir().unwrap();
    tiny(V3, true).save(folder.path(), SaveDtype::F32).unwrap();
    let (path, config) = (folder.path().join("model.safetensors"), folder.path().join("config.json"));
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let further = "model.layers.2.eh_proj.weight".to_owned();
    let one = tensors.tensor("model.norm.weight").unwrap();
    let all = tensors.tensors().into_iter().chain([(further, one)]);
    let written = safetensors::serialize(all, None).unwrap();
    fs::write(&path, written).unwrap();
    let complaint = format!("{:#}", ModelFolder::read(folder.path()).unwrap_err());
    assert!(complaint.contains("model.layers.2.eh_proj.weight"), "{complaint}");
    let mut shape: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    shape["num_nextn_predict_layers"] = json!(1);
    fs::write(&config, shape.to_string()).unwrap();
    let policy = Policy::new(ModelFolder::read(folder.path()).unwrap(), CpuOptions::default());
    let out = tempfile::tempdir().unwrap();
    policy.save(out.path(), SaveDtype::F32).unwrap();
    let read = ModelFolder::read(out.path()).unwrap();
    assert_eq!(read.config.other["num_nextn_predict_layers"], json!(0));
    assert_eq!(logprobs(&policy), logprobs(&tiny(V3, true)));
}

#[test]
fn a_model_that_asks_for_experts_and_has_none_of_its_layers_use_them_is_a_dense_one() {
    let policy = tiny_of(V3, true, 16, &json!({ "first_k_dense_replace": 2 }));
    let prompts = prompts(2);
    let completions = generate(&policy, &prompts, &sampling(5), 1, 3);
    assert!(completions.iter().all(|completion| completion.routed.is_none()), "no experts are recorded");
    assert_eq!(cpu_learner(&policy).active_experts(), 0);
}

#[test]
fn loads_count_each_choice_once_on_any_threads_and_where_layers_are_computed_again() {
    for architecture in MIXTURES {
        let mut policy = tiny(architecture, true);
        let micros = shared_micros(&samples(7), 40);
        let tokens: usize = micros.iter().map(|micro| micro.tokens.len()).sum();
        let mut expected = None;
        for (threads, recompute) in [(1, false), (3, false), (2, true)] {
            cpu_mut(&mut policy).threads = threads;
            cpu_mut(&mut policy).decoder.recompute = recompute;
            cpu(&policy).gradients(&micros, 0.9, &loss);
            let loads = cpu(&policy).take_choices().layers;
            let active = cpu_learner(&policy).active_experts();
            assert_eq!(loads[1].rows.iter().sum::<u64>(), (tokens * active) as u64, "{architecture}");
            assert_eq!(*expected.get_or_insert(loads.clone()), loads, "{architecture}, {threads} threads");
        }
        cpu(&policy).logprobs(None, &micros, 0.9);
        assert!(cpu(&policy).take_choices().layers.is_empty(), "log-probabilities alone are no update");
    }
    assert!(cpu_learner(&tiny("Qwen2ForCausalLM", true)).choices().unwrap().layers.is_empty());
}

#[test]
fn a_bias_moves_toward_even_loads_and_nothing_else_does() {
    let mut policy = tiny(V3, true);
    cpu(&policy).gradients(&shared_micros(&samples(6), 60), 0.9, &rising);
    let (loads, place) = (cpu(&policy).take_choices().layers, choice_bias(&policy, 1));
    let before = cpu(&policy).parameters().trained_values().to_vec();
    cpu_mut(&mut policy).balance(&loads, 0.25).unwrap();
    let after = cpu(&policy).parameters().trained_values();
    let mean = loads[1].rows.iter().sum::<u64>() as f64 / 6.0;
    for (expert, &rows) in loads[1].rows.iter().enumerate() {
        let moved = after[place.start + expert] - before[place.start + expert];
        let expected = if rows as f64 > mean { -0.25 } else { 0.25 };
        assert!((rows as f64 == mean && moved == 0.0) || moved == expected, "{rows} of {mean}: {moved}");
    }
    let moved: Vec<usize> = (0..before.len()).filter(|&place| before[place] != after[place]).collect();
    assert!(!moved.is_empty() && moved.iter().all(|at| place.contains(at)), "nothing else: {moved:?}");
}

#[test]
fn a_model_that_cannot_be_balanced_is_refused_in_one_line() {
    let adapted = trained_with(saved(V3, SaveDtype::F32).path(), &all(), CpuOptions::default());
    for (mut policy, words) in [
        (tiny("Qwen2ForCausalLM", true), "this model has none"),
        (tiny("Qwen3MoeForCausalLM", true), "this model has none"),
        (adapted, "an adapter leaves"),
    ] {
        policy.can_be_balanced(0.0).unwrap();
        let complaint = policy.can_be_balanced(1e-3).unwrap_err().to_string();
        assert!(complaint.contains(words) && !complaint.contains('\n'), "{complaint}");
    }
}

#[test]
fn a_base_of_eight_bits_computes_experts_and_latents_with_the_sampler_s_bits() {
    for architecture in ["Qwen3MoeForCausalLM", V3] {
        let folder = saved(architecture, SaveDtype::Bf16);
        let base = ModelFolder::read_requantized(folder.path(), Some(BaseType::Q8_0)).unwrap();
        let policy = Policy::new(base, CpuOptions::default());
        super::sampling::check_trainer_agrees(&policy, architecture);
    }
}

/// Writes a base in miniature of the shape and the words of `examples/moe-countdown`.
fn write_base(folder: &Path) {
    let at = |path: &str| format!("{}/examples/{path}", env!("CARGO_MANIFEST_DIR"));
    let small: Value = serde_json::from_str(&fs::read_to_string(at("moe-countdown/shape.json")).unwrap()).unwrap();
    let mut small = small;
    for (key, value) in [("hidden_size", 32), ("intermediate_size", 48), ("moe_intermediate_size", 16)] {
        small[key] = json!(value);
    }
    small["num_hidden_layers"] = json!(2);
    let shape = folder.join("shape.json");
    fs::write(&shape, small.to_string()).unwrap();
    let config = fs::read_to_string(at("moe-countdown/base.toml")).unwrap();
    let config = config.replace("examples/moe-countdown/shape.json", text(&shape));
    let config = config.replace("examples/countdown/tokenizer.json", &at("countdown/tokenizer.json"));
    let path = folder.join("base.toml");
    fs::write(&path, config.replace("tokens_per_step = 4096", "tokens_per_step = 512")).unwrap();
    let sets = ["--set", "steps=4", "--set", "compute.device=cpu"];
    succeeds(&[&["sft", text(&path), "--out", text(&folder.join("base"))][..], &sets].concat());
}

/// Writes a config of `reckon train` on such a base, whose experts are balanced.
pub(crate) fn balanced_run(folder: &Path, steps: usize) -> PathBuf {
    write_base(folder);
    let more = "control = 'coin_flip'\noptim = {lr = 1e-3, balance = 1e-2}\ngrpo = {completions_per_update = 8}";
    let config = small_run(folder, steps, more);
    let edited = fs::read_to_string(&config).unwrap().replace("builtin:countdown", text(&folder.join("base")));
    fs::write(&config, edited).unwrap();
    config
}

#[test]
fn a_run_with_balanced_experts_agrees_with_its_sampler_and_resumes_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let run = check_resumes(&balanced_run(folder.path(), 4), &[2]);
    for record in &records(&run)[1..] {
        let (most, least) = (record.get("router/load_max").unwrap(), record.get("router/load_min").unwrap());
        assert!(most >= 1.0 && least <= 1.0 && record.get("router/entropy").unwrap() > 0.0);
        let shares: f64 = (0..8).map(|expert| record.get(&format!("router/load/1/{expert}")).unwrap()).sum();
        assert!((shares - 8.0).abs() < 1e-9, "{shares}");
    }
    let biases = |step: usize| {
        let bytes = fs::read(run.join(format!("checkpoints/step-{step:06}/model.safetensors"))).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        tensors.tensor("model.layers.1.mlp.gate.e_score_correction_bias").unwrap().data().to_vec()
    };
    assert_ne!(biases(4), biases(0), "the biases move");
}
