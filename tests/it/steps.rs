//! Whole steps with a sampler whose completions are edited on their way to the judge: what is rewarded is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use reckon::config::TrainConfig;
use reckon::eval::evaluate;
use reckon::judge::Judge;
use reckon::metrics::Record;
use reckon::policy::Policy;
use reckon::rollout::{Completion, FinishReason, Finished, LocalSampler, Request, Sampler};
use reckon::strict;
use reckon::train::{Step, Trainer};
use reckon_datasets::Example;
use reckon_rewards::{Outcome, Registry, Rubric, Verdict, Verifier, VerifierError};

use super::models::{FAMILIES, tiny};

/// Samples as a run does, and hands on what `edit` makes of each completion, if anything.
struct Edited<F> {
    edit: F,
    published: Arc<AtomicUsize>,
}

impl<F: Fn(usize, Completion) -> Option<Completion> + Send + Sync> Sampler for Edited<F> {
    fn publish(&mut self, _: &Policy) -> Result<()> {
        self.published.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn sample(&self, policy: &Policy, request: &Request, finished: &Finished) -> Result<()> {
        LocalSampler { capacity: 4 }.sample(policy, request, &|prompt, sample, completion| {
            if let Some(completion) = (self.edit)(sample, completion) {
                finished(prompt, sample, completion);
            }
        })
    }
}

/// Passes `d`, does not judge `?`, and fails over `!`.
struct Letter;

impl Verifier for Letter {
    fn name(&self) -> &str {
        "letter"
    }

    fn verify(&self, example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        Ok(match completion {
            "?" => Verdict::zero(Outcome::Skipped, "told to"),
            "!" => Verdict::zero(Outcome::Error, "told to"),
            right if right == &*example.answer => Verdict::pass(right, "right"),
            wrong => Verdict::fail(wrong, "wrong"),
        })
    }
}

/// A run over questions whose answer is `d`, one prompt a step.
fn trainer(
    group_size: usize,
    grpo: &str,
    edit: impl Fn(usize, Completion) -> Option<Completion> + Send + Sync + 'static,
) -> (Trainer, Arc<AtomicUsize>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("questions.jsonl");
    let rows = ('g'..='x').map(|c| format!("{{\"question\": \"a{c}\", \"answer\": \"d\"}}\n"));
    std::fs::write(&path, rows.collect::<String>()).unwrap();
    let text = format!(
        "steps = 9\nmodel = {{path = 'tiny'}}\nprompt = {{template = '{{question}}'}}
        data = {{dataset = 'file', path = {path:?}, columns = {{question = 'question', answer = 'answer'}}, held_out = 0.5}}
        rollout = {{prompts_per_step = 1, group_size = {group_size}, max_new_tokens = 10, stop = ['c']}}
        eval = {{problems = 0}}\nrubric = {{verifiers = [{{kind = 'rust', verifier = 'letter'}}]}}
        grpo = {{{grpo}}}\noptim = {{lr = 1e-9}}\ncompute = {{device = 'cpu', threads = 1}}"
    );
    let config: TrainConfig = strict::load(&text, "the test's config", &[]).unwrap();
    let registry = Registry::default().with("letter", |_, _| Ok(Box::new(Letter)));
    let judge = Judge::new(vec![Rubric::from_config_with(&config.rubric, &registry).unwrap()]).unwrap();
    let mut trainer = Trainer::new(config, tiny(FAMILIES[0], true), judge).unwrap();
    let published = Arc::new(AtomicUsize::new(0));
    trainer.sampler = Box::new(Edited { edit, published: published.clone() });
    (trainer, published)
}

/// Says of each sample what stands at its place, whatever was sampled.
fn said(texts: &'static [&'static str]) -> impl Fn(usize, Completion) -> Option<Completion> + Send + Sync {
    move |sample, completion| Some(Completion { text: texts[sample].into(), finish: FinishReason::Stop, ..completion })
}

fn get(record: &Record, name: &str) -> f64 {
    record.get(name).unwrap_or_else(|| panic!("{name} is not recorded"))
}

#[test]
fn a_completion_that_is_lost_on_its_way_is_an_error_and_no_group_is_shifted() {
    let lossy = |sample, completion| (sample != 1).then_some(completion);
    let (mut trainer, published) = trainer(3, "", lossy);
    let error = format!("{:#}", trainer.step().unwrap_err());
    assert!(error.contains("completion 1 of example") && error.contains("no verdict"), "{error}");
    assert_eq!((trainer.progress.step, trainer.progress.prompts_used, published.load(Ordering::Relaxed)), (0, 0, 0));
    assert!(trainer.can_be_resumed());
}

#[test]
fn rewards_that_differ_by_their_length_alone_are_no_signal() {
    let near_the_limit = |sample: usize, completion: Completion| {
        let mut tokens = completion.tokens.clone();
        tokens.resize(if sample == 0 { 2 } else { 10 }, 3);
        let logprobs = vec![-1.0; tokens.len()];
        Some(Completion { text: "d".into(), tokens, logprobs, finish: FinishReason::Stop, ..completion })
    };
    let (mut trainer, _) = trainer(2, "preset = 'dapo', resample_max = 1", near_the_limit);
    let step = trainer.step().unwrap();
    let group = &step.groups[0];
    assert_eq!(group.rewards(), [Some(1.0), Some(1.0)], "the reward is the verifier's");
    assert_eq!(group.penalised_rewards(), [Some(1.0), Some(0.0)], "what is learned from is lowered");
    assert_eq!((get(&step.record, "reward/mean"), get(&step.record, "penalty/overlong_mean")), (1.0, -0.5));
    assert_eq!(get(&step.record, "group/zero_signal_frac"), 1.0);
    assert_eq!((get(&step.record, "group/kept"), get(&step.record, "group/resampled")), (0.0, 1.0));
    assert_eq!(get(&step.record, "optim/updates"), 0.0);
}

#[test]
fn the_loss_of_a_step_is_the_mean_over_its_updates() {
    // Advantages 2/3, -1/3, -1/3 in updates of two samples and of one: losses -(1/3)/2 and 1/3, whose mean is 1/12.
    let grpo = "preset = 'grpo', advantage = 'mean', kl_coef = 0.0, completions_per_update = 2";
    let (mut trainer, published) = trainer(3, grpo, said(&["d", "e", "e"]));
    let record = trainer.step().unwrap().record;
    assert_eq!(get(&record, "optim/updates"), 2.0);
    let loss = get(&record, "loss/total");
    assert!((loss - 1.0 / 12.0).abs() < 1e-5, "{loss}, not 1/12");
    assert_eq!(get(&record, "policy/mismatch_kl"), 0.0, "the first update's weights are those that were sampled from");
    assert_eq!(published.load(Ordering::Relaxed), 1, "weights are published once a step");
}

#[test]
fn a_completion_that_is_not_judged_is_in_no_mean_and_teaches_nothing() {
    // Advantages none, 2/3 and -1/3, -1/3 in two updates: losses -2/3 and 1/3, whose mean is -1/6.
    let grpo = "preset = 'grpo', advantage = 'mean', kl_coef = 0.0, completions_per_update = 2";
    let (mut trainer, _) = trainer(4, grpo, said(&["?", "d", "e", "e"]));
    let Step { record, groups } = trainer.step().unwrap();
    assert_eq!(groups[0].rewards(), [None, Some(1.0), Some(0.0), Some(0.0)]);
    for (name, expected) in [
        ("loss/total", -1.0 / 6.0),
        ("reward/mean", 1.0 / 3.0),
        ("reward/std", 2f64.sqrt() / 3.0),
        ("reward/letter", 1.0 / 3.0),
        ("reward/not_judged_frac", 0.25),
        ("verdict/letter/skipped", 0.25),
        ("verdict/letter/pass", 0.25),
        ("group/zero_signal_frac", 0.0),
    ] {
        assert!((get(&record, name) - expected).abs() < 1e-5, "{name}: {}, not {expected}", get(&record, name));
    }
    let prompts = trainer.prompts().held_out(1).unwrap();
    let found = evaluate(trainer.rollouts(), prompts, 4).unwrap();
    assert!((found.accuracy - 1.0 / 3.0).abs() < 1e-9 && found.not_judged == 0.25, "{found}");
    assert_eq!(found.judged.iter().map(|judged| judged.passed).collect::<Vec<_>>()[..2], [None, Some(true)]);
}

#[test]
fn a_group_whose_judged_rewards_are_equal_is_resampled_and_moves_no_weight() {
    for (texts, judged) in [(&["?", "d", "d", "d"], true), (&["?", "?", "?", "d"], true), (&["?"; 4], false)] {
        let (mut trainer, _) = trainer(4, "preset = 'dapo', resample_max = 1", said(texts));
        let record = trainer.step().unwrap().record;
        assert_eq!(get(&record, "group/zero_signal_frac"), 1.0, "{texts:?}");
        assert_eq!((get(&record, "group/kept"), get(&record, "optim/updates")), (0.0, 0.0), "{texts:?}");
        assert_eq!(record.get("reward/mean").is_some(), judged, "{texts:?}");
    }
    // Where groups without signal are kept, a KL term is none of a completion's that was not judged.
    let (mut trainer, _) = trainer(4, "preset = 'grpo', kl_coef = 0.1", said(&["?"; 4]));
    assert_eq!(get(&trainer.step().unwrap().record, "optim/updates"), 0.0);
}

#[test]
fn completions_over_which_a_verifier_fails_are_counted_until_they_are_too_many() {
    let (mut few, _) = trainer(5, "", said(&["!", "d", "e", "e", "e"]));
    let record = few.step().unwrap().record;
    assert_eq!((get(&record, "verdict/letter/error"), get(&record, "reward/mean")), (0.2, 0.25));
    let (mut many, _) = trainer(4, "", said(&["!", "!", "!", "d"]));
    let error = format!("{:#}", many.step().unwrap_err());
    assert!(error.contains("failed over 3 of 4 completions, more than max_error_share = 0.5"), "{error}");
    assert!(many.progress.step == 0 && many.can_be_resumed());
}
