//! Runs with each choice of an objective: that they move the weights, what they leave, and what must change nothing.

use std::path::Path;

use reckon::config::PRESETS;
use reckon::metrics::Record;
use serde_json::{Map, Value};

use crate::program::{records, small_run, succeeds, text};

/// The records of a short run with this `[grpo]` table.
fn run(folder: &Path, steps: usize, grpo: &str) -> Vec<Record> {
    let out = folder.join("run");
    let _ = std::fs::remove_dir_all(&out);
    let config = small_run(folder, steps, &format!("grpo = {{{grpo}}}"));
    let sets = ["--set", "eval.problems=0", "--set", "save.every=99"];
    succeeds(&[&["train", text(&config), "--out", text(&out)], &sets[..]].concat());
    records(&out)
}

fn get(record: &Record, name: &str) -> f64 {
    record.get(name).unwrap_or_else(|| panic!("{name} is not recorded"))
}

/// The numbers of a record but those of corrections.
fn without_corrections(record: &Record) -> Map<String, Value> {
    let Value::Object(mut values) = serde_json::to_value(record).unwrap() else { unreachable!("a flat object") };
    values.retain(|name, _| !name.starts_with("correction/"));
    values
}

#[test]
fn every_preset_takes_steps_that_move_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    let presets: toml::Table = PRESETS.parse().unwrap();
    for (preset, keys) in &presets {
        // Several updates, where the paper makes several.
        let updates = keys.get("completions_per_update").is_some_and(|count| count.as_integer() == Some(64));
        let more = match preset.as_str() {
            "pass_at_k" => ", pass_k = 2",
            _ if updates => ", completions_per_update = 8",
            _ => "",
        };
        let records = run(folder.path(), 3, &format!("preset = '{preset}'{more}"));
        assert!(records[1..].iter().any(|record| get(record, "optim/updates") > 0.0), "{preset}");
        for record in &records[1..] {
            assert!(get(record, "loss/total").is_finite() && get(record, "optim/skipped") == 0.0, "{preset}");
            assert_eq!(get(record, "policy/mismatch_kl"), 0.0, "{preset}");
        }
    }
}

#[test]
fn corrections_are_idle_where_sampler_and_policy_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let plain = run(folder.path(), 3, "completions_per_update = 8, drop_zero_signal = false");
    for correction in [
        "correction = 'recompute'",
        "correction = 'truncate_tokens', reject = 'mean_ratio', reject_bound = 1.000001",
        "correction = 'mask_tokens', correction_low = 1.0, correction_high = 1.0",
        "correction = 'truncate_sequences', reject = 'mean_kl', reject_bound = 1e-12",
        "correction = 'mask_sequences', correction_low = 1.0, correction_high = 1.0, reject = 'max_kl', reject_bound = 1e-12",
    ] {
        let corrected =
            run(folder.path(), 3, &format!("completions_per_update = 8, drop_zero_signal = false, {correction}"));
        for (plain, corrected) in plain.iter().zip(&corrected).skip(1) {
            assert_eq!(without_corrections(corrected), without_corrections(plain), "{correction}");
            for (name, expected) in [
                ("correction/effective_frac", 1.0),
                ("correction/weight_mean", 1.0),
                ("correction/kl", 0.0),
                ("correction/masked_frac", 0.0),
                ("correction/rejected_frac", 0.0),
            ] {
                assert_eq!(get(corrected, name), expected, "{correction}: {name}");
            }
        }
    }
}

#[test]
fn further_updates_of_a_step_say_how_far_they_are_from_its_sampler() {
    let folder = tempfile::tempdir().unwrap();
    let records = run(folder.path(), 3, "completions_per_update = 4, drop_zero_signal = false");
    let ages = |record: &Record| [1, 2, 3].map(|age| get(record, &format!("policy/kl_age/{age}")));
    assert!(records[1..].iter().any(|record| ages(record).iter().all(|kl| *kl > 0.0)), "{records:?}");
    assert!(records[1..].iter().all(|record| record.get("policy/kl_age/4").is_none()));
}

#[test]
fn a_bonus_with_a_target_raises_entropy_and_resumes_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let entropies = |grpo: &str| -> Vec<f64> {
        run(folder.path(), 8, grpo).iter().skip(1).map(|record| get(record, "policy/entropy")).collect()
    };
    let (plain, raised) =
        (entropies("drop_zero_signal = false"), entropies("drop_zero_signal = false, entropy_coef = 3.0"));
    assert!(raised[7] > plain[7] + 0.02, "{raised:?} beside {plain:?}");

    let with_target = "grpo = {entropy_target = 0.3, entropy_delta = 0.5}";
    let (config, whole, cut) =
        (small_run(folder.path(), 4, with_target), folder.path().join("a"), folder.path().join("b"));
    succeeds(&["train", text(&config), "--out", text(&whole)]);
    succeeds(&["train", text(&config), "--out", text(&cut), "--set", "steps=2"]);
    succeeds(&["train", "--resume", text(&cut), "--set", "steps=4"]);
    let (whole, cut) = (records(&whole), records(&cut));
    let coefs =
        |records: &[Record]| -> Vec<f64> { records[1..].iter().map(|r| get(r, "policy/entropy_coef")).collect() };
    assert_eq!(coefs(&cut), coefs(&whole));
    assert_eq!(get(&cut[4], "loss/total"), get(&whole[4], "loss/total"));
    assert!(coefs(&whole)[0] == 0.0 && coefs(&whole).iter().any(|coef| *coef >= 0.5), "{:?}", coefs(&whole));
}
