//! Model folders: what is written reads back, and what is wrong with one is said in one line.

use std::fs;
use std::path::Path;

use reckon::model::{ModelFolder, SaveDtype};
use reckon::policy::Policy;
use serde_json::{Value, json};

use super::models::{VOCAB, cpu, families, tiny};
use super::program::{fails, small_run, succeeds, text};

/// A policy whose weights go to two files.
fn sharded(architecture: &str) -> Policy {
    let mut policy = tiny(architecture, false);
    let names: Vec<String> = cpu(&policy).parameters().trained_entries().iter().map(|e| e.name.clone()).collect();
    let (first, second) = names.split_at(names.len() / 2);
    let file = |i: usize| format!("model-0000{i}-of-00002.safetensors");
    policy.companions.shards = vec![(file(1), first.to_vec()), (file(2), second.to_vec())];
    policy.companions.files.push(("generation_config.json".into(), br#"{"eos_token_id": [3, 4]}"#.to_vec()));
    policy
}

#[test]
fn a_saved_folder_reads_back_with_its_shards_and_its_end_tokens() {
    for architecture in families() {
        let policy = sharded(architecture);
        let folder = tempfile::tempdir().unwrap();
        policy.save(folder.path(), SaveDtype::F32).unwrap();
        let read = ModelFolder::read(folder.path()).unwrap();
        assert_eq!(read.weights.values, cpu(&policy).parameters().trained_values());
        assert_eq!(read.config.eos_token_id, [3, 4]);
        assert_eq!(read.companions.shards, policy.companions.shards);
        assert!(folder.path().join("generation_config.json").exists());
    }
}

#[test]
fn halved_precision_is_rounded_to_nearest_and_named_in_the_config() {
    let policy = tiny("Qwen2ForCausalLM", true);
    for (dtype, bits, name) in [(SaveDtype::Bf16, 8, "bfloat16"), (SaveDtype::F16, 11, "float16")] {
        let folder = tempfile::tempdir().unwrap();
        policy.save(folder.path(), dtype).unwrap();
        let read = ModelFolder::read(folder.path()).unwrap();
        assert_eq!(read.companions.dtype, dtype);
        assert_eq!(read.config.other["torch_dtype"], name);
        for (a, b) in read.weights.values.iter().zip(cpu(&policy).parameters().trained_values()) {
            let half_a_unit = b.abs() / f32::powi(2.0, bits) + 1e-7;
            assert!((a - b).abs() <= half_a_unit, "{b} became {a} as {name}");
        }
    }
}

#[test]
fn an_untied_folder_names_the_output_matrix_which_is_the_embedding() {
    let policy = tiny("Qwen2ForCausalLM", true);
    let folder = tempfile::tempdir().unwrap();
    policy.save_untied(folder.path(), SaveDtype::F32).unwrap();
    let read = ModelFolder::read(folder.path()).unwrap();
    assert!(!read.config.tie_word_embeddings);
    let named = |name: &str| {
        let entry = read.weights.layout.entries.iter().find(|entry| entry.name == name).unwrap();
        &read.weights.values[entry.range.clone()]
    };
    assert_eq!(named("lm_head.weight"), named("model.embed_tokens.weight"));
    let tied: usize = cpu(&policy).parameters().trained_values().len();
    assert_eq!(read.weights.values.len(), tied + named("lm_head.weight").len());
    // What was never tied is written as it is.
    let policy = tiny("LlamaForCausalLM", false);
    policy.save_untied(folder.path(), SaveDtype::F32).unwrap();
    assert_eq!(ModelFolder::read(folder.path()).unwrap().weights.values, cpu(&policy).parameters().trained_values());
}

fn edit_json(folder: &Path, name: &str, edit: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap();
    edit(&mut value);
    fs::write(folder.join(name), value.to_string()).unwrap();
}

/// Cuts the last bytes off a file.
fn shorten(folder: &Path, name: &str) {
    let bytes = fs::read(folder.join(name)).unwrap();
    fs::write(folder.join(name), &bytes[..bytes.len() - 7]).unwrap();
}

const SECOND: &str = "model-00002-of-00002.safetensors";
const INDEX: &str = "model.safetensors.index.json";

#[test]
fn a_damaged_folder_is_refused_in_a_line_that_names_the_fault() {
    type Damage = fn(&Path);
    let table: [(Damage, &[&str]); 12] = [
        (|f| shorten(f, SECOND), &[SECOND, "cut short"]),
        (|f| fs::write(f.join(SECOND), [255u8; 40]).unwrap(), &[SECOND, "damaged"]),
        (|f| fs::remove_file(f.join(SECOND)).unwrap(), &["cannot open", SECOND]),
        (|f| fs::remove_file(f.join(INDEX)).unwrap(), &["neither model.safetensors nor"]),
        (
            |f| {
                edit_json(f, INDEX, |v| {
                    v["weight_map"]["model.norm.weight"] = json!("model-00001-of-00002.safetensors")
                })
            },
            &["model.norm.weight is in model-00001-of-00002.safetensors, which does not hold it"],
        ),
        (
            |f| edit_json(f, INDEX, |v| drop(v["weight_map"].as_object_mut().unwrap().remove("model.norm.weight"))),
            &[SECOND, "holds model.norm.weight", "does not list"],
        ),
        (|f| edit_json(f, INDEX, |v| v["weight_map"]["x"] = json!("../x")), &["../x", "not a file beside it"]),
        (
            |f| edit_json(f, "config.json", |v| v["num_hidden_layers"] = json!(3)),
            &["none of the 2 shards has a tensor model.layers.2.input_layernorm.weight"],
        ),
        (
            |f| edit_json(f, "config.json", |v| v["num_hidden_layers"] = json!(1)),
            &["has a tensor model.layers.1.input_layernorm.weight that the config has no place for"],
        ),
        (
            |f| edit_json(f, "config.json", |v| v["intermediate_size"] = json!(40)),
            &["model.layers.0.mlp.gate_proj.weight", "[48, 32]", "[40, 32]"],
        ),
        (
            |f| edit_json(f, "config.json", |v| v["vocab_size"] = json!(VOCAB - 1)),
            &["token id 23", "vocab_size = 23", "different models"],
        ),
        (
            |f| fs::write(f.join("generation_config.json"), r#"{"eos_token_id": 99}"#).unwrap(),
            &["eos_token_id", "99", "vocab_size = 24"],
        ),
    ];
    for (damage, words) in table {
        let folder = tempfile::tempdir().unwrap();
        sharded("LlamaForCausalLM").save(folder.path(), SaveDtype::F32).unwrap();
        damage(folder.path());
        let message = format!("{:#}", ModelFolder::read(folder.path()).unwrap_err());
        assert!(words.iter().all(|word| message.contains(word)), "{words:?} are not all in: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn an_exported_run_is_a_folder_of_the_type_it_began_with() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base");
    succeeds(&["export", "builtin:countdown", "--out", text(&base), "--dtype", "bf16"]);
    assert_eq!(ModelFolder::read(&base).unwrap().companions.dtype, SaveDtype::Bf16);
    let config = small_run(folder.path(), 1, "");
    let (run, out) = (folder.path().join("run"), folder.path().join("out"));
    let from = format!("model.path=\"{}\"", base.display());
    succeeds(&["train", text(&config), "--set", &from, "--out", text(&run)]);
    assert!(succeeds(&["export", text(&run), "--out", text(&out)]).contains("step-000001, as bfloat16"));
    let (trained, written) =
        (ModelFolder::read(&run.join("checkpoints/step-000001")), ModelFolder::read(&out).unwrap());
    let trained = trained.unwrap();
    assert_eq!((trained.companions.dtype, written.companions.dtype), (SaveDtype::F32, SaveDtype::Bf16));
    let near = |a: f32, b: f32| (a - b).abs() <= b.abs() / 256.0;
    assert!(written.weights.values.iter().zip(&trained.weights.values).all(|(a, b)| near(*a, *b)));
    assert!(!out.join("trainer.json").exists(), "what only a resumed run needs stays behind");
}

#[test]
fn a_run_on_a_damaged_folder_ends_with_one_line_before_step_0() {
    let folder = tempfile::tempdir().unwrap();
    let (model, run) = (folder.path().join("model"), folder.path().join("run"));
    let config = small_run(folder.path(), 1, "");
    let from = format!("model.path=\"{}\"", model.display());
    type Damage = fn(&Path);
    let table: [(Damage, &str); 4] = [
        (|f| shorten(f, "model.safetensors"), "cut short"),
        (|f| edit_json(f, "config.json", |v| v["num_hidden_layers"] = json!(9)), "has no tensor model.layers."),
        (|f| edit_json(f, "config.json", |v| v["num_hidden_layers"] = json!(1)), "has no place for"),
        (|f| edit_json(f, "config.json", |v| v["vocab_size"] = json!(9)), "they belong to different models"),
    ];
    for (damage, expected) in table {
        succeeds(&["export", "builtin:countdown", "--out", text(&model)]);
        damage(&model);
        let complaint = fails(&["train", text(&config), "--set", &from, "--out", text(&run)]);
        assert!(complaint.contains(expected) && complaint.trim().lines().count() == 1, "{complaint}");
        assert!(!run.exists(), "nothing is begun");
    }
}
