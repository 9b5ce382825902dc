//! Adapters: what they compute, what they learn, their files, and runs that train them.

use std::fs;
use std::path::Path;

use reckon::batch::TokenStats;
use reckon::config::LoraConfig;
use reckon::model::files::folder;
use reckon::model::{CpuOptions, CpuReference, Layout, ModelFolder, SaveDtype};
use reckon::policy::Policy;
use reckon_datasets::Counted;

use super::gradients::check_gradients;
use super::models::{FAMILIES, cpu, cpu_mut, families, rising, samples, shared_micros, tiny};
use super::program::{fails, records, small_run, succeeds, text};
use super::resuming::check_resumes;
use super::sampling::check_trainer_agrees;

/// A config of rank 3.
fn config(targets: &[&str]) -> LoraConfig {
    let targets = targets.iter().map(|&target| target.to_owned()).collect();
    LoraConfig { rank: 3, alpha: 6.0, targets: Some(targets), ..LoraConfig::default() }
}

pub(crate) fn all() -> LoraConfig {
    config(&["*_proj"])
}

/// A new adapter on the model in `folder`.
fn adapted(folder: &Path, lora: &LoraConfig, options: CpuOptions) -> anyhow::Result<Policy> {
    let model = ModelFolder::read_frozen(folder)?;
    Ok(Policy::new(model.adapted(|base| lora.start(&base.layout, text(folder), 7))?, options))
}

/// The same with values far from their start.
fn trained(folder: &Path, lora: &LoraConfig) -> Policy {
    trained_with(folder, lora, CpuOptions::default())
}

pub(crate) fn trained_with(folder: &Path, lora: &LoraConfig, options: CpuOptions) -> Policy {
    let mut policy = adapted(folder, lora, options).unwrap();
    let mut noise = Counted::new(&[5]);
    cpu_mut(&mut policy).trainable().values.iter_mut().for_each(|value| *value += 0.05 * noise.normal() as f32);
    policy
}

/// A folder with a tiny model.
pub(crate) fn saved(architecture: &str, dtype: SaveDtype) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    tiny(architecture, architecture == FAMILIES[1]).save(folder.path(), dtype).unwrap();
    folder
}

fn logprobs(policy: &Policy) -> Vec<f32> {
    flat(cpu(policy).logprobs(None, &shared_micros(&samples(6), 50), 0.9))
}

fn flat(stats: Vec<TokenStats>) -> Vec<f32> {
    stats.into_iter().flat_map(|stats| stats.logprobs).collect()
}

fn norm(values: &mut dyn Iterator<Item = f32>) -> f32 {
    values.map(|x| x * x).sum::<f32>().sqrt()
}

#[test]
fn every_factor_gets_a_gradient_that_agrees_with_finite_differences() {
    for architecture in families() {
        let keys = if architecture.starts_with("Deepseek") { "kv_b_proj" } else { "k_proj" };
        for (targets, dtype) in [(&["*_proj"][..], SaveDtype::F32), (&[keys, "up_proj", "down_proj"], SaveDtype::Bf16)]
        {
            let folder = saved(architecture, dtype);
            let mut policy = trained(folder.path(), &config(targets));
            check_gradients(&mut policy, &format!("{architecture}, {targets:?}"));
            let factors = cpu(&policy).parameters().trained_entries().len();
            let dense = if targets.len() == 1 { 28 } else { 12 };
            assert!(if FAMILIES.contains(&architecture) { factors == dense } else { factors > dense }, "{factors}");
        }
    }
}

#[test]
fn a_new_adapter_changes_no_bit_and_a_trained_one_leaves_the_reference_as_it_was() {
    for (architecture, dtype) in families().flat_map(|a| [(a, SaveDtype::F32), (a, SaveDtype::Bf16)]) {
        let folder = saved(architecture, dtype);
        // Weights that learn are widened to fp32 when they are read.
        let expected = logprobs(&Policy::new(ModelFolder::read(folder.path()).unwrap(), CpuOptions::default()));
        assert_eq!(
            logprobs(&Policy::new(ModelFolder::read_frozen(folder.path()).unwrap(), CpuOptions::default())),
            expected
        );
        assert_eq!(logprobs(&adapted(folder.path(), &all(), CpuOptions::default()).unwrap()), expected);
        let policy = trained(folder.path(), &all());
        assert_ne!(logprobs(&policy), expected);
        let reference = CpuReference::of(cpu(&policy).parameters());
        let stats = cpu(&policy).logprobs(Some(&reference), &shared_micros(&samples(6), 50), 0.9);
        assert_eq!(flat(stats), expected, "{architecture} in {dtype:?}");
    }
}

#[test]
fn the_sampler_and_the_trainer_agree_to_the_bit_with_a_trained_adapter() {
    for architecture in families() {
        let folder = saved(architecture, SaveDtype::Bf16);
        check_trainer_agrees(&trained(folder.path(), &all()), architecture);
    }
}

#[test]
fn micro_batches_and_threads_do_not_change_the_gradient_of_an_adapter() {
    let folder = saved(FAMILIES[1], SaveDtype::Bf16);
    let mut policy = trained(folder.path(), &all());
    let samples = samples(7);
    let gradient =
        |policy: &Policy, max_tokens| cpu(policy).gradients(&shared_micros(&samples, max_tokens), 1.0, &rising).0;
    let (whole, cut) = (gradient(&policy, 10_000), gradient(&policy, 30));
    cpu_mut(&mut policy).threads = 3;
    assert_eq!(gradient(&policy, 30), cut);
    let difference = norm(&mut whole.iter().zip(&cut).map(|(a, b)| a - b));
    assert!(difference < 1e-6 * norm(&mut whole.iter().copied()), "{difference}");
}

#[test]
fn an_adapter_goes_through_its_files_and_back_and_is_refused_beside_other_settings() {
    let folder = saved(FAMILIES[1], SaveDtype::F32);
    let policy = trained(folder.path(), &config(&["q_proj", "down_proj"]));
    let files = tempfile::tempdir().unwrap();
    policy.save(files.path(), SaveDtype::F32).unwrap();
    let again = |lora: LoraConfig| {
        adapted(folder.path(), &LoraConfig { adapter: Some(files.path().into()), ..lora }, CpuOptions::default())
    };
    let same = again(config(&["q_proj", "down_proj"])).unwrap();
    assert_eq!(cpu(&same).parameters().trained_values(), cpu(&policy).parameters().trained_values());
    assert_eq!(logprobs(&same), logprobs(&policy));
    for (lora, words) in [
        (LoraConfig { rank: 4, ..config(&["q_proj", "down_proj"]) }, "has rank 3: set lora.rank = 3"),
        (LoraConfig { alpha: 3.0, ..config(&["q_proj", "down_proj"]) }, "has alpha 6: set lora.alpha = 6"),
        (config(&["q_proj", "down_proj", "o_proj"]), "self_attn.o_proj: take it out of lora.targets"),
        (config(&["q_proj"]), "mlp.down_proj: name it in lora.targets"),
    ] {
        let message = format!("{:#}", again(lora).unwrap_err());
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn what_an_adapter_file_asks_for_and_is_not_computed_is_refused_by_name() {
    let folder = saved(FAMILIES[0], SaveDtype::F32);
    let files = tempfile::tempdir().unwrap();
    adapted(folder.path(), &all(), CpuOptions::default()).unwrap().save(files.path(), SaveDtype::F32).unwrap();
    let path = files.path().join("adapter_config.json");
    let written = fs::read_to_string(&path).unwrap();
    for (from, to, words) in [
        ("\"LORA\"", "\"IA3\"", "peft_type = \"IA3\""),
        ("\"use_dora\": false", "\"use_dora\": true", "use_dora is set"),
        ("\"bias\": \"none\"", "\"bias\": \"all\"", "bias = \"all\""),
        ("\"modules_to_save\": null", "\"modules_to_save\": [\"lm_head\"]", "modules_to_save is set"),
        ("\"r\": 3", "\"r\": 4", "has shape [3, 32], but the config asks for [4, 32]"),
    ] {
        let edited = written.replace(from, to);
        assert_ne!(edited, written, "{from}");
        fs::write(&path, edited).unwrap();
        let lora = LoraConfig { adapter: Some(files.path().into()), ..all() };
        let message = format!("{:#}", adapted(folder.path(), &lora, CpuOptions::default()).unwrap_err());
        assert!(message.contains(words) && !message.contains('\n'), "{message}");
    }
}

#[test]
fn a_merged_model_computes_what_the_adapter_on_its_base_does() {
    for architecture in families() {
        let folder = saved(architecture, SaveDtype::Bf16);
        let policy = trained(folder.path(), &all());
        let out = tempfile::tempdir().unwrap();
        let (Policy { config, tokenizer, companions, .. }, values) = (&policy, cpu(&policy).parameters());
        folder::write(out.path(), config, tokenizer, companions, values, SaveDtype::F32).unwrap();
        let merged = Policy::new(ModelFolder::read(out.path()).unwrap(), CpuOptions::default());
        let (merged, expected) = (logprobs(&merged), logprobs(&policy));
        let difference = norm(&mut merged.iter().zip(&expected).map(|(a, b)| a - b));
        assert!(difference <= 1e-5 * norm(&mut expected.iter().copied()), "{architecture}: {difference}");
    }
}

#[test]
fn a_pattern_that_matches_nothing_is_an_error_that_names_it_and_what_there_is() {
    let policy = tiny(FAMILIES[0], true);
    let layout = Layout::of(&policy.config).unwrap();
    for pattern in ["qproj", "lm_head", "layers.2.*"] {
        let message = config(&["q_proj", pattern]).layout(&layout).unwrap_err().to_string();
        for words in
            [pattern, "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj", "model.layers.1.mlp.down_proj"]
        {
            assert!(message.contains(words), "{message}");
        }
    }
}

/// A run of an adapter on a folder with the embedded model, over a mixture, with a reference that is replaced on the way.
fn lora_run(folder: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let base = folder.join("base");
    succeeds(&["export", "builtin:countdown", "--out", text(&base), "--dtype", "bf16"]);
    let config = small_run(
        folder,
        4,
        "lora = {rank = 4, alpha = 8}\ngrpo = {kl_coef = 0.01, completions_per_update = 8, ref_refresh_every = 2}
        optim = {lr = 1e-3}",
    );
    let mixture = "data = {dataset = 'mixture', sources = [
        {name = 'one', from = {dataset = 'countdown'}},
        {name = 'two', weight = 0.5, from = {dataset = 'countdown', problems = {numbers = 4}}}]}";
    let edited = fs::read_to_string(&config).unwrap().replace("data = {dataset = 'countdown'}", mixture);
    fs::write(&config, edited.replace("builtin:countdown", text(&base))).unwrap();
    (config, base)
}

#[test]
fn a_resumed_run_of_an_adapter_is_the_run_that_was_not_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let (config, base) = lora_run(folder.path());
    let run = check_resumes(&config, &[3, 1]);
    assert!(records(&run).iter().any(|record| record.get("policy/kl_ref").is_some_and(|kl| kl > 0.0)));
    assert!(!run.join("checkpoints/step-000004/model.safetensors").exists(), "the base is not saved with it");

    // Another base than it was trained on.
    succeeds(&["export", "builtin:countdown", "--out", text(&base), "--dtype", "f16"]);
    let complaint = fails(&["train", "--resume", text(&run)]);
    assert!(complaint.contains("is not the one that the run began with"), "{complaint}");
}

#[test]
fn an_adapter_is_sampled_evaluated_and_exported_like_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let (config, _) = lora_run(folder.path());
    let run = folder.path().join("run");
    succeeds(&["train", text(&config), "--out", text(&run)]);
    let checkpoint = run.join("checkpoints/step-000004");
    let (merged, adapter) = (folder.path().join("merged"), folder.path().join("adapter"));
    assert!(succeeds(&["export", text(&run), "--out", text(&merged)]).contains("as bfloat16"));
    succeeds(&["export", text(&run), "--out", text(&adapter), "--adapter"]);
    assert!(merged.join("tokenizer.json").exists() && !merged.join("adapter_config.json").exists());
    let values = |folder: &Path| fs::read(folder.join("adapter_model.safetensors")).unwrap();
    assert_eq!(values(&adapter), values(&checkpoint));
    let sample = |model: &Path| succeeds(&["sample", "18,1,13:31 ", "--model", text(model), "--temperature", "0"]);
    assert_eq!(sample(&adapter), sample(&checkpoint));
    let evaluated = succeeds(&["eval", text(&config), "--model", text(&adapter), "--json"]);
    let found: serde_json::Value = serde_json::from_str(&evaluated).unwrap();
    assert_eq!(found["pass@1"].as_f64(), records(&run)[4].get("eval/pass@1"));
    let complaint = fails(&["export", text(&merged), "--out", text(&adapter), "--adapter"]);
    assert!(complaint.contains("has no adapter"), "{complaint}");
}
