//! Whole steps with a sampler whose completions are edited on their way to the judge: what is rewarded is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use reckon::config::TrainConfig;
use reckon::judge::Judge;
use reckon::metrics::Record;
use reckon::policy::Policy;
use reckon::rollout::{Completion, FinishReason, Finished, LocalSampler, Request, Sampler};
use reckon::strict;
use reckon::train::Trainer;
use reckon_rewards::Rubric;

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
        eval = {{problems = 0}}\nrubric = {{verifiers = [{{kind = 'exact', extract = {{from = 'whole'}}}}]}}
        grpo = {{{grpo}}}\noptim = {{lr = 1e-9}}\ncompute = {{device = 'cpu', threads = 1}}"
    );
    let config: TrainConfig = strict::load(&text, "the test's config", &[]).unwrap();
    let judge = Judge::new(vec![Rubric::from_config(&config.rubric).unwrap()]).unwrap();
    let mut trainer = Trainer::new(config, tiny(FAMILIES[0], true), judge).unwrap();
    let published = Arc::new(AtomicUsize::new(0));
    trainer.sampler = Box::new(Edited { edit, published: published.clone() });
    (trainer, published)
}

/// Right for the samples that `right` names, whatever was sampled.
fn answered(right: &'static [usize]) -> impl Fn(usize, Completion) -> Option<Completion> + Send + Sync {
    move |sample, completion| {
        let text = if right.contains(&sample) { "d" } else { "e" };
        Some(Completion { text: text.into(), finish: FinishReason::Stop, ..completion })
    }
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
        Some(Completion { text: "d".into(), tokens, logprobs, finish: FinishReason::Stop })
    };
    let (mut trainer, _) = trainer(2, "preset = 'dapo', resample_max = 1", near_the_limit);
    let step = trainer.step().unwrap();
    let rewards: Vec<f32> = step.groups[0].rollouts.iter().map(|rollout| rollout.reward).collect();
    assert_eq!(rewards, [1.0, 0.0], "soft overlong punishment is part of the reward");
    assert_eq!(get(&step.record, "group/zero_signal_frac"), 1.0);
    assert_eq!((get(&step.record, "group/kept"), get(&step.record, "group/resampled")), (0.0, 1.0));
    assert_eq!(get(&step.record, "optim/updates"), 0.0);
}

#[test]
fn the_loss_of_a_step_is_the_mean_over_its_updates() {
    // Advantages 2/3, -1/3, -1/3 in updates of two samples and of one: losses -(1/3)/2 and 1/3, whose mean is 1/12.
    let grpo = "preset = 'grpo', advantage = 'mean', kl_coef = 0.0, updates_per_step = 2";
    let (mut trainer, published) = trainer(3, grpo, answered(&[0]));
    let record = trainer.step().unwrap().record;
    assert_eq!(get(&record, "optim/updates"), 2.0);
    let loss = get(&record, "loss/total");
    assert!((loss - 1.0 / 12.0).abs() < 1e-5, "{loss}, not 1/12");
    assert_eq!(get(&record, "policy/mismatch_kl"), 0.0, "the first update's weights are those that were sampled from");
    assert_eq!(published.load(Ordering::Relaxed), 1, "weights are published once a step");
}
