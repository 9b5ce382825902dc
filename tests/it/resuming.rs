//! A resumed run equals one that was not, and what it says of a checkpoint that it cannot go on from, and of a config that
//! was changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::program::{fails, records, small_run, succeeds, text};
use crate::recipes::write_model;

/// Trains a run of `config`, and another that loses what is behind each of these steps and is resumed: they have the same
/// records and bits, the model learns, and the sampler agrees with the trainer. Returns the folder of the first.
pub(crate) fn check_resumes(config: &Path, from: &[usize]) -> PathBuf {
    let (straight, resumed) = (config.with_file_name("straight"), config.with_file_name("resumed"));
    for run in [&straight, &resumed] {
        succeeds(&["train", text(config), "--out", text(run), "--set", "save.keep_last=9"]);
    }
    let expected = records(&straight);
    assert!(expected[1..].iter().all(|record| record.get("policy/mismatch_kl") == Some(0.0)), "{expected:?}");
    let last = expected.last().unwrap().step as usize;
    assert_ne!(tensors(&straight, last, "model."), tensors(&straight, 0, "model."), "the model learns");
    for &from in from {
        for step in from + 1..=last {
            fs::remove_dir_all(checkpoint(&resumed, step)).unwrap();
        }
        succeeds(&["train", "--resume", text(&resumed)]);
        assert_eq!(records(&resumed), expected, "from step {from}");
        assert!(tensors(&resumed, last, "") == tensors(&straight, last, ""), "from step {from}: other bits");
    }
    straight
}

fn checkpoint(run: &Path, step: usize) -> PathBuf {
    run.join(format!("checkpoints/step-{step:06}"))
}

/// The bytes of a checkpoint's files of tensors whose names have `part` in them.
fn tensors(run: &Path, step: usize, part: &str) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(checkpoint(run, step)).unwrap().map(|entry| entry.unwrap().path());
    let named = files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path));
    let named = named.filter(|(name, _)| name.ends_with(".safetensors") && name.contains(part));
    named.map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}

/// A run of three steps, with a checkpoint after each.
fn trained(folder: &Path, name: &str, more: &str) -> PathBuf {
    let (config, run) = (small_run(folder, 3, more), folder.join(name));
    succeeds(&["train", text(&config), "--out", text(&run), "--set", "save.keep_last=3"]);
    run
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => assert!(fs::copy(entry.path(), target).is_ok()),
        }
    }
}

fn cut(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_named_with_its_file_and_the_one_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let whole = trained(folder.path(), "whole", "");
    type Damage = fn(&Path);
    let damages: [(&str, &str, Damage); 6] = [
        ("trainer.json", "trainer.json is damaged", |path| fs::write(path, "").unwrap()),
        ("trainer.json", "trainer.json is damaged", |path| fs::write(path, "{}").unwrap()),
        ("trainer.json", "trainer.json", |path| fs::remove_file(path).unwrap()),
        ("trainer.safetensors", "trainer.safetensors is", cut),
        ("trainer.safetensors", "trainer.safetensors", |path| fs::remove_file(path).unwrap()),
        ("model.safetensors", "model.safetensors is", cut),
    ];
    for (number, (file, expected, damage)) in damages.into_iter().enumerate() {
        let run = folder.path().join(format!("damaged-{number}"));
        copy(&whole, &run);
        let last = run.join("checkpoints/step-000003");
        damage(&last.join(file));
        let complaint = fails(&["train", "--resume", text(&run)]);
        let before = run.join("checkpoints/step-000002");
        let named = [text(&last), expected, &format!("move it away to go on from {}", text(&before))];
        assert!(named.iter().all(|part| complaint.contains(part)), "{file}: {complaint}");
        assert_eq!(complaint.trim().lines().count(), 1, "{complaint}");
        fs::rename(&last, folder.path().join(format!("away-{number}"))).unwrap();
        succeeds(&["train", "--resume", text(&run)]);
        assert_eq!(records(&run), records(&whole), "what is left is gone on from");
        // Where all others are damaged too, none is offered.
        for step in ["step-000000", "step-000001", "step-000002"] {
            let path = run.join("checkpoints").join(step).join("trainer.json");
            if path.exists() {
                fs::write(path, "").unwrap();
            }
        }
        damage(&run.join("checkpoints/step-000003").join(file));
        assert!(fails(&["train", "--resume", text(&run)]).contains("start a new run"));
    }
}

#[test]
fn another_models_checkpoint_is_named_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    write_model(&model);
    let other = trained(folder.path(), "run", "");
    let config = fs::read_to_string(other.join("config.toml")).unwrap();
    fs::write(other.join("config.toml"), config.replace("builtin:countdown", text(&model))).unwrap();
    let set = format!("model.path={}", text(&model));
    let complaint = fails(&["train", "--resume", text(&other), "--set", &set]);
    let named = ["checkpoints/step-000003 cannot be gone on from", "it is another model's: ", "has shape"];
    assert!(named.iter().all(|part| complaint.contains(part)), "{complaint}");
}

#[test]
fn a_config_that_was_changed_is_told_key_by_key_and_gone_on_with_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path(), "run", "optim = {lr = 0.001}");
    let config = run.join("config.toml");
    let written = fs::read_to_string(&config).unwrap();
    let edit = |from: &str, to: &str| {
        assert!(written.contains(from), "{from}: {written}");
        fs::write(&config, written.replacen(from, to, 1)).unwrap();
    };
    for (from, to, expected) in [
        (
            "lr = 0.001",
            "lr = 0.002",
            "optim.lr is 0.002 and was 0.001; put it back, or go on with it by --set optim.lr=0.002",
        ),
        ("group_size = 4", "group_size = 8", "rollout.group_size is 8 and was 4"),
        ("max_depth = 32", "max_depth = 16", "rubric.verifiers.0.max_depth is 16 and was 32"),
        (
            "preset = \"token_grpo\"",
            "preset = \"dapo\"",
            "grpo.preset is \"dapo\" and was \"token_grpo\"; the name of a preset",
        ),
    ] {
        edit(from, to);
        let complaint = fails(&["train", "--resume", text(&run)]);
        assert!(complaint.contains(expected) && complaint.trim().lines().count() == 1, "{complaint}");
    }
    edit("steps = 3", "steps = 4");
    succeeds(&["train", "--resume", text(&run)]);
    assert_eq!(records(&run).last().unwrap().step, 4, "a run may be made longer without a word");

    fs::write(&config, &written).unwrap();
    assert!(fails(&["train", "--resume", text(&run), "--set", "grpo.preset=dapo"]).contains("changes nothing"));
    let sets = ["--set", "optim.lr=0.002", "--set", "steps=5"];
    succeeds(&[&["train", "--resume", text(&run)], &sets[..]].concat());
    let lr = |step: usize| records(&run)[step].get("optim/lr");
    assert_ne!(lr(5), lr(4));
    assert!(fs::read_to_string(&config).unwrap().contains("lr = 0.002"));
    succeeds(&["train", "--resume", text(&run), "--set", "steps=6"]);
    assert_eq!(lr(6), lr(5), "what was set stays");
}
