//! A policy that is taught on its own completions: it comes nearer to its teacher, exactly as the formulas say.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use reckon::batch::{MicroBatch, Teaching, TokenLosses, TokenStats};
use reckon::ops::linear_logprob::distill::Divergence;
use reckon::policy::Policy;

use crate::models::{FAMILIES, VOCAB, cpu, cpu_learner, cpu_mut, samples, shared_micros, tiny, tiny_with};
use crate::program::{base_config, fails, records, small_run, succeeds, text};
use crate::recipes::write_model;

/// A model that has learned to answer without thinking: a student with much to learn from the embedded one.
fn student() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("student-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let config = folder.join("sft.toml");
        fs::write(
            &config,
            "steps = 40\ntokens_per_step = 1000\nmodel = {path = 'builtin:countdown'}\ndata = {dataset = 'countdown'}\n\
             traces = {give_up_rate = 1.0}\nprompt = {template = '{question} '}\noptim = {lr = 3e-3}\neval = {rows = 0}\n\
             compute = {device = 'cpu'}",
        )
        .unwrap();
        succeeds(&["sft", text(&config), "--out", text(&folder.join("model"))]);
        folder.join("model")
    })
}

/// A run of the student, taught by the embedded model.
fn taught(folder: &Path, steps: usize, teacher: &str) -> PathBuf {
    let more = format!("teacher = {{path = 'builtin:countdown', {teacher}}}\noptim = {{lr = 1e-3}}");
    let config = small_run(folder, steps, &more);
    let written = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        written.replace("path = 'builtin:countdown'}\ndata", &format!("path = '{}'}}\ndata", text(student()))),
    )
    .unwrap();
    config
}

/// Short runs that write the metrics of teaching: taught ones, and a supervised one.
pub(crate) fn runs_of_every_kind(folder: &Path) -> Vec<PathBuf> {
    let train = |objective: &str| {
        let more = format!("teacher = {{path = 'builtin:countdown', objective = '{objective}'}}");
        let run = folder.join(objective);
        succeeds(&["train", text(&small_run(folder, 1, &more)), "--out", text(&run)]);
        run
    };
    let (rows, config, run) = (folder.join("rows.jsonl"), folder.join("sft.toml"), folder.join("sft"));
    fs::write(&rows, "{\"prompt\": \"1,2:3\", \"completion\": \"1+2\"}\n".repeat(4)).unwrap();
    let keys = format!(
        "epochs = 1\nsamples_per_step = 4\nmodel = {{path = 'builtin:countdown'}}\ncompute = {{device = 'cpu'}}\n\
         data = {{dataset = 'file', path = '{0}', held_out = '{0}'}}",
        rows.display()
    );
    fs::write(&config, keys).unwrap();
    succeeds(&["sft", text(&config), "--out", text(&run)]);
    vec![train("sampled"), train("full"), run]
}

#[test]
fn the_policy_comes_nearer_to_its_teacher_step_by_step() {
    // What the sampled tokens say of the divergence is noisy.
    for (teacher, metric, share) in [
        ("objective = 'sampled'", "teacher/kl_sampled", 0.9),
        ("objective = 'full'", "teacher/divergence", 0.8),
        ("objective = 'full', beta = 0.5", "teacher/divergence", 0.8),
        ("objective = 'full', beta = 0.0", "teacher/divergence", 0.8),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let config = taught(folder.path(), 16, teacher);
        let run = folder.path().join("run");
        let sets = ["rollout.prompts_per_step=16", "eval.problems=0", "save.every=100"].map(|set| ["--set", set]);
        succeeds(&[&["train", text(&config), "--out", text(&run)], &sets.concat()[..]].concat());
        let found: Vec<f64> = records(&run).iter().filter_map(|record| record.get(metric)).collect();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        assert_eq!(found.len(), 16, "{teacher}");
        assert!(mean(&found[12..]) < share * mean(&found[..4]), "{teacher}: {found:?}");
        assert!(records(&run)[1..].iter().all(|r| r.get("policy/mismatch_kl") == Some(0.0)), "{teacher}");
    }
}

#[test]
fn a_teacher_that_is_the_policy_teaches_nothing_and_groups_of_one_are_enough() {
    for (objective, metric) in [("sampled", "teacher/kl_sampled"), ("full", "teacher/divergence")] {
        let folder = tempfile::tempdir().unwrap();
        let more = format!("teacher = {{path = 'builtin:countdown', objective = '{objective}'}}");
        let config = small_run(folder.path(), 1, &more);
        let run = folder.path().join("run");
        let sets = ["--set", "rollout.group_size=1", "--set", "eval.problems=0"];
        succeeds(&[&["train", text(&config), "--out", text(&run)], &sets[..]].concat());
        let record = &records(&run)[1];
        assert!(record.get(metric).unwrap().abs() < 1e-5, "{objective}: {record:?}");
        assert!(record.get("optim/grad_norm").unwrap() < 1e-4, "{objective}: {record:?}");
    }
}

#[test]
fn a_taught_run_that_is_resumed_equals_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let config = taught(folder.path(), 4, "objective = 'full', rewards = true");
    let (straight, resumed) = (folder.path().join("straight"), folder.path().join("resumed"));
    succeeds(&["train", text(&config), "--out", text(&straight)]);
    succeeds(&["train", text(&config), "--out", text(&resumed), "--set", "steps=2"]);
    succeeds(&["train", "--resume", text(&resumed), "--set", "steps=4"]);
    let last = |run: &Path| records(run).last().unwrap().clone();
    assert_eq!(last(&resumed), last(&straight));
}

#[test]
fn what_a_teacher_cannot_be_is_said_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    write_model(&model);
    for (teacher, expected) in [
        (format!("{{path = '{}'}}", model.display()), "the teacher's tokenizer is another one"),
        ("{path = 'nowhere'}".to_owned(), "teacher.path = \"nowhere\""),
        ("{path = 'builtin:countdown', beta = 0.5}".to_owned(), "teacher.beta = 0.5: it needs objective = \"full\""),
        (
            "{path = 'builtin:countdown', objective = 'full', discount = 0.5}".to_owned(),
            "teacher.discount = 0.5: it needs objective = \"sampled\"",
        ),
        ("{path = 'builtin:countdown', coef = -1.0}".to_owned(), "teacher.coef = -1"),
        ("{path = 'builtin:countdown', objective = 'ful'}".to_owned(), "did you mean \"full\"?"),
    ] {
        let config = small_run(folder.path(), 1, &format!("teacher = {teacher}"));
        let complaint = fails(&["train", text(&config), "--out", text(&folder.path().join("run"))]);
        assert!(complaint.contains(expected) && complaint.trim().lines().count() == 1, "{teacher}: {complaint}");
    }
    let base = base_config(folder.path());
    assert!(fails(&["sft", text(&base), "--out", "x", "--set", "teacher=3"]).contains("unknown key \"teacher\""));
    let config = small_run(folder.path(), 1, "teacher = {path = 'builtin:countdown', rewards = true}");
    let alone = fails(&["train", text(&config), "--set", "rollout.group_size=1"]);
    assert!(alone.contains("no group has a signal"), "{alone}");
    let plan = succeeds(&["plan", text(&config), "--memory", "64GiB", "--prompt-tokens", "20"]);
    assert!(plan.contains("teacher"), "{plan}");
}

/// The divergence of a batch, by weight, at a policy's weights as they are.
fn divergence(policy: &mut Policy, micros: &[MicroBatch], teacher: &Policy, beta: f32) -> f64 {
    let nothing = |micro: &MicroBatch, _: &TokenStats| TokenLosses {
        gradient: vec![0.0; micro.rows.len()],
        ..TokenLosses::default()
    };
    let divergence = Divergence { beta, vocab: VOCAB };
    let teaching = Teaching { teacher: &*teacher.learner, divergence, coef: 0.7 };
    let stats = policy.learner.distil(micros, 0.9, &nothing, teaching).unwrap();
    stats.iter().map(|stats| stats.loss).sum()
}

#[test]
fn every_weight_gets_the_gradient_of_the_divergence_that_finite_differences_say() {
    const STEP: f64 = 3e-4;
    let teacher = tiny_with(FAMILIES[1], true, 8);
    let micros = shared_micros(&samples(6), 64);
    for beta in [1.0, 0.0, 0.5] {
        let mut policy = tiny(FAMILIES[0], true);
        assert!(divergence(&mut policy, &micros, &teacher, beta) > 0.01);
        let gradient = cpu_learner(&policy).gradients.clone();
        for entry in cpu(&policy).parameters().trained_entries().to_vec() {
            let g = &gradient[entry.range.clone()];
            let norm = g.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            assert!(norm > 1e-6, "{}: {norm}", entry.name);
            let step = STEP / norm;
            let saved = cpu(&policy).parameters().trained_values()[entry.range.clone()].to_vec();
            let mut at = |sign: f64| {
                let values = &mut cpu_mut(&mut policy).trainable().values[entry.range.clone()];
                for ((w, saved), g) in values.iter_mut().zip(&saved).zip(g) {
                    *w = (f64::from(*saved) + sign * step * f64::from(*g)) as f32;
                }
                divergence(&mut policy, &micros, &teacher, beta)
            };
            let slope = (at(1.0) - at(-1.0)) / (2.0 * STEP);
            cpu_mut(&mut policy).trainable().values[entry.range.clone()].copy_from_slice(&saved);
            assert!((slope - norm).abs() < 0.02 * norm + 5e-4, "beta {beta}, {}: {slope}, not {norm}", entry.name);
        }
    }
}

#[test]
fn threads_change_no_bit_of_what_is_taught() {
    let teacher = tiny_with(FAMILIES[1], true, 8);
    let micros = shared_micros(&samples(24), 32);
    let run = |threads: usize| {
        let mut policy = tiny(FAMILIES[2], false);
        cpu_mut(&mut policy).threads = threads;
        (divergence(&mut policy, &micros, &teacher, 1.0), cpu_learner(&policy).gradients.clone())
    };
    assert_eq!(run(1), run(3));
}
