//! The next step sampled while this one updates: against a sequential run whose sampler lags behind, and as a user runs it.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use reckon::config::TrainConfig;
use reckon::judge::{Group, Judge};
use reckon::metrics::Record;
use reckon::policy::{Model, Policy};
use reckon::rollout::{Finished, LocalSampler, Request, Sampler};
use reckon::strict;
use reckon::train::Trainer;
use reckon_datasets::Example;
use reckon_rewards::{Outcome, Registry, Rubric, Verdict, Verifier, VerifierError};

use super::models::{FAMILIES, tiny};
use super::program::{fails, records, small_run, succeeds, text};

/// Passes completions of an even length, and fails over all of them behind so many calls.
struct Even {
    calls: AtomicUsize,
    until: usize,
}

impl Verifier for Even {
    fn name(&self) -> &str {
        "even"
    }

    fn verify(&self, _: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        Ok(match completion.len() % 2 {
            _ if self.calls.fetch_add(1, Ordering::Relaxed) >= self.until => Verdict::zero(Outcome::Error, "broken"),
            0 => Verdict::pass(completion, "even"),
            _ => Verdict::fail(completion, "odd"),
        })
    }
}

/// Samples from the weights before the last step, one after the other.
struct Lagging {
    older: Policy,
    newer: Policy,
}

impl Sampler for Lagging {
    fn publish(&mut self, policy: &Policy) -> Result<()> {
        self.older.follow(&self.newer)?;
        self.newer.follow(policy)
    }

    fn sample(&self, _: &Policy, request: &Request, finished: &Finished) -> Result<()> {
        LocalSampler { capacity: 4 }.sample(&self.older, request, finished)
    }
}

/// A run over questions of one letter, two prompts a step, whose verifier breaks behind so many calls.
fn trainer(ahead: usize, grpo: &str, until: usize) -> Trainer {
    corrected(ahead, &format!("correction = 'truncate_tokens', {grpo}"), until)
}

/// The same with a correction of `grpo`'s own.
fn corrected(ahead: usize, grpo: &str, until: usize) -> Trainer {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("questions.jsonl");
    let rows = ('g'..='x').map(|c| format!("{{\"question\": \"a{c}\", \"answer\": \"d\"}}\n"));
    fs::write(&path, rows.collect::<String>()).unwrap();
    let text = format!(
        "steps = 9\nmodel = {{path = 'tiny'}}\nprompt = {{template = '{{question}}'}}
        data = {{dataset = 'file', path = {path:?}, columns = {{question = 'question', answer = 'answer'}}, held_out = 0.5}}
        rollout = {{prompts_per_step = 2, group_size = 4, max_new_tokens = 10, stop = ['c'], ahead = {ahead}}}
        eval = {{problems = 0}}\nrubric = {{verifiers = [{{kind = 'rust', verifier = 'even'}}]}}
        grpo = {{{grpo}}}\noptim = {{lr = 1e-2, warmup_steps = 0}}
        compute = {{device = 'cpu', threads = 2}}"
    );
    let config: TrainConfig = strict::load(&text, "the test's config", &[]).unwrap();
    let registry = Registry::default().with("even", move |_, _| Ok(Box::new(Even { calls: 0.into(), until })));
    let judge = Judge::new(vec![Rubric::from_config_with(&config.rubric, &registry).unwrap()]).unwrap();
    Trainer::new(config, tiny(FAMILIES[0], true), judge).unwrap()
}

/// What a step samples and what it makes of it.
fn outcome(groups: &[Group], trainer: &Trainer) -> (Vec<Vec<u32>>, Vec<u32>, Vec<u32>) {
    let rollouts: Vec<_> = groups.iter().flat_map(|group| &group.rollouts).collect();
    let logprobs = rollouts.iter().flat_map(|rollout| &rollout.completion.logprobs).map(|logprob| logprob.to_bits());
    let Model::Cpu(model) = trainer.policy.learner.model() else { panic!("a CPU's") };
    (
        rollouts.iter().map(|rollout| rollout.completion.tokens.clone()).collect(),
        logprobs.collect(),
        model.parameters().trained_values().iter().map(|value| value.to_bits()).collect(),
    )
}

fn get(record: &Record, name: &str) -> f64 {
    record.get(name).unwrap_or_else(|| panic!("{name} is not recorded"))
}

#[test]
fn a_step_sampled_ahead_is_that_of_a_sequential_run_whose_sampler_is_one_step_behind() {
    for choice in ["", "completions_per_update = 4, ", "advantage = 'greedy', "] {
        let grpo = &format!("{choice}drop_zero_signal = false");
        let (mut ahead, mut sequential) = (trainer(1, grpo, usize::MAX), trainer(0, grpo, usize::MAX));
        let copy = |trainer: &Trainer| trainer.policy.copy().unwrap();
        sequential.sampler = Box::new(Lagging { older: copy(&sequential), newer: copy(&sequential) });
        let mut lags = Vec::new();
        for step in 1..=5 {
            let (found, expected) = (ahead.step().unwrap(), sequential.step().unwrap());
            assert_eq!(found.record.without_timings(), expected.record.without_timings(), "{grpo}, step {step}");
            assert_eq!(outcome(&found.groups, &ahead), outcome(&expected.groups, &sequential), "{grpo}, step {step}");
            lags.push((get(&found.record, "policy/mismatch_kl"), get(&found.record, "correction/effective_frac")));
        }
        assert_eq!(lags[0], (0.0, 1.0), "the first step has nothing to be behind of");
        assert!(lags[1..].iter().any(|(kl, effective)| *kl > 0.0 && *effective < 1.0), "{grpo}: {lags:?}");
    }
}

#[test]
fn a_correction_made_in_passing_is_to_the_bit_the_one_that_looks_back_first() {
    for kind in ["truncate_tokens", "mask_tokens", "truncate_sequences", "mask_sequences"] {
        let grpo = format!("correction = '{kind}', drop_zero_signal = false");
        // Nothing is so far away that it is left out, but that is to be known before the update.
        let looking_back = format!("{grpo}, reject = 'max_kl', reject_bound = 1e9");
        let (mut passing, mut looking) = (corrected(1, &grpo, usize::MAX), corrected(1, &looking_back, usize::MAX));
        let mut far = 0.0f64;
        for step in 1..=5 {
            let (found, expected) = (passing.step().unwrap(), looking.step().unwrap());
            assert_eq!(found.record.without_timings(), expected.record.without_timings(), "{kind}, step {step}");
            assert_eq!(outcome(&found.groups, &passing), outcome(&expected.groups, &looking), "{kind}, step {step}");
            far = far.max(get(&found.record, "correction/kl"));
        }
        assert!(far > 0.0, "{kind}: nothing was to be corrected");
    }
}

#[test]
fn a_verifier_that_breaks_ahead_is_the_next_steps_error() {
    let mut broken = trainer(1, "", 8);
    broken.step().unwrap();
    assert!(broken.step().is_err());
    assert!(broken.can_be_resumed() && broken.progress.step == 1);
}

#[test]
fn a_sampler_that_cannot_sample_beside_updates_is_refused() {
    let mut refused = trainer(1, "", usize::MAX);
    refused.sampler =
        Box::new(Lagging { older: refused.policy.copy().unwrap(), newer: refused.policy.copy().unwrap() });
    let message = refused.step().unwrap_err().to_string();
    assert!(message.contains("this sampler does not sample while the policy is updated"), "{message}");
}

/// A run of four steps that samples ahead, with a checkpoint after each.
fn run(folder: &Path, name: &str, more: &str, sets: &[&str]) -> std::path::PathBuf {
    let (config, out) = (small_run(folder, 4, more), folder.join(name));
    let ahead = ["--set", "rollout.ahead=1", "--set", "save.keep_last=9", "--set", "optim.lr=0.001"];
    succeeds(&[&["train", text(&config), "--out", text(&out)], &ahead[..], sets].concat());
    out
}

#[test]
fn a_run_sampled_ahead_is_the_same_on_any_threads_and_when_it_was_stopped_behind_any_step() {
    let adapter = "lora = {rank = 4}\ngrpo = {drop_zero_signal = false}";
    let rested = "curriculum = {rows = 8, rest_after = 1}\ngrpo = {drop_zero_signal = true, resample_max = 1}";
    for (more, probe) in [("", "0"), (adapter, "0"), (rested, "2")] {
        let folder = tempfile::tempdir().unwrap();
        let probe = format!("rollout.probe={probe}");
        let sets = |threads: &'static str| ["--set", threads, "--set", &probe].map(str::to_owned);
        let on = |name: &str, threads| {
            let sets = sets(threads);
            run(folder.path(), name, more, &sets.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let whole = on("two", "compute.threads=2");
        let expected = records(&whole);
        assert!(expected[2..].iter().any(|step| get(step, "policy/mismatch_kl") > 0.0), "{expected:?}");
        for (name, threads) in [("one", "compute.threads=1"), ("three", "compute.threads=3")] {
            assert_eq!(records(&on(name, threads)), expected, "{more}: {threads}");
        }
        for step in [3, 1, 0] {
            let later = (step + 1..=4).map(|step| whole.join(format!("checkpoints/step-{step:06}")));
            later.filter(|path| path.exists()).for_each(|path| fs::remove_dir_all(path).unwrap());
            let next = whole.join(format!("checkpoints/step-{step:06}/next.postcard"));
            assert_eq!(next.exists(), step > 0, "the first step is not sampled ahead");
            succeeds(&["train", "--resume", text(&whole)]);
            assert_eq!(records(&whole), expected, "{more}: resumed behind step {step}");
        }
        assert!(!whole.join("checkpoints/step-000004/next.postcard").exists(), "nothing comes behind the last step");
        let last = whole.join("checkpoints/step-000004");
        fs::remove_dir_all(last).unwrap();
        fs::write(whole.join("checkpoints/step-000003/next.postcard"), "\u{7f}").unwrap();
        let complaint = fails(&["train", "--resume", text(&whole)]);
        assert!(complaint.contains("next.postcard is damaged") && complaint.contains("step-000002"), "{complaint}");
    }
}

#[test]
fn what_cannot_be_sampled_ahead_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    for (more, set, expected) in [
        ("", "rollout.ahead=2", "rollout.ahead = 2: completions are at most 1 step old"),
        (
            "servers = {engine = 'reckon', urls = ['http://127.0.0.1:9'], weights = 'weights', model = 'policy'}",
            "rollout.ahead=1",
            "[servers] have one set of weights",
        ),
        ("compute = {device = 'cuda'}", "rollout.ahead=1", "a card samples and updates in the same memory"),
        ("grpo = {correction = 'recompute'}", "rollout.ahead=1", "grpo.correction = \"recompute\" does not weigh them"),
    ] {
        let config = small_run(folder.path(), 2, more);
        let complaint = fails(&["train", text(&config), "--out", text(&out), "--set", set]);
        assert!(complaint.contains(expected) && complaint.trim().lines().count() == 1, "{more}: {complaint}");
    }
}

#[test]
fn without_it_a_run_and_its_checkpoints_are_what_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let (config, plain, zero) = (small_run(folder.path(), 2, ""), folder.path().join("a"), folder.path().join("b"));
    succeeds(&["train", text(&config), "--out", text(&plain)]);
    succeeds(&["train", text(&config), "--out", text(&zero), "--set", "rollout.ahead=0"]);
    assert_eq!(records(&plain), records(&zero));
    assert!(records(&plain)[1..].iter().all(|step| get(step, "policy/mismatch_kl") == 0.0));
    assert!(!plain.join("checkpoints/step-000001/next.postcard").exists());
}
