//! Losses, gradients by token, advantages and weights beside those of verl and TRL, on the same made-up completions. The
//! numbers were made by `scripts/objective_fixtures.py`; `docs/objectives.md` has the table that this prints.

use std::io::Write;

use reckon::batch::{PromptLayout, TokenStats};
use reckon::config::{GrpoConfig, TrainConfig};
use reckon::grpo::{
    KlPlace, LossConfig, Outcome, Outcomes, TrainSample, advantages, micro_batches, select, token_losses,
};
use reckon::strict;
use serde::Deserialize;

const FIXTURE: &str = include_str!("../fixtures/objectives.json");

/// What peers compute in f64, this computes in f64 and keeps in f32.
const TOLERANCE: f64 = 1e-6;

#[derive(Deserialize)]
struct Fixture {
    batch: Batch,
    cases: Vec<Case>,
}

/// Twelve completions in groups, by completion and token.
#[derive(Deserialize)]
struct Batch {
    group: usize,
    masked: usize,
    rewards: Vec<f32>,
    right: Vec<f32>,
    parts: Vec<Vec<f32>>,
    weights: Vec<f32>,
    greedy: Vec<f32>,
    advantages: Vec<Vec<f32>>,
    token_advantages: Vec<Vec<f32>>,
    now: Vec<Vec<f32>>,
    old: Vec<Vec<f32>>,
    rollout: Vec<Vec<f32>>,
    reference: Vec<Vec<f32>>,
    entropies: Vec<Vec<f32>>,
}

/// What a peer says of them: a loss with its gradient, advantages, weights, or which completions are kept.
#[derive(Deserialize)]
struct Case {
    name: String,
    peer: String,
    grpo: String,
    #[serde(default)]
    masked: bool,
    advantages: Option<String>,
    rewards: Option<String>,
    loss: Option<f64>,
    gradient: Option<Vec<Vec<f64>>>,
    entropy_gradient: Option<Vec<Vec<f64>>>,
    values: Option<Vec<Vec<f64>>>,
    weights: Option<Vec<Vec<f64>>>,
    kept: Option<Vec<bool>>,
}

fn config(grpo: &str) -> GrpoConfig {
    let run =
        "steps = 1\nmodel = {path = 'm'}\ndata = {dataset = 'parity'}\nrubric = {verifiers = [{kind = 'exact'}]}\n";
    let config: TrainConfig = strict::load(&format!("{run}[grpo]\n{grpo}"), "config.toml", &[]).unwrap();
    config.validate().unwrap();
    config.grpo
}

/// The largest distance of two tables of the same shape.
fn distance<'a>(found: impl IntoIterator<Item = &'a Vec<f32>>, expected: &[Vec<f64>]) -> f64 {
    let found: Vec<&Vec<f32>> = found.into_iter().collect();
    assert_eq!(found.len(), expected.len());
    let of_row = |(found, expected): (&&Vec<f32>, &Vec<f64>)| {
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
    };
    found.iter().zip(expected).map(of_row).fold(0.0, f64::max)
}

impl Batch {
    fn samples(&self, case: &Case) -> Vec<TrainSample> {
        let by_token = case.advantages.as_deref() == Some("token");
        let advantages = if by_token { &self.token_advantages } else { &self.advantages };
        let sample = |i: usize| TrainSample {
            // The number of the completion names its row of the batch.
            tokens: vec![i as u32; 1 + self.old[i].len()],
            prompt_len: 1,
            rollout_logprobs: self.rollout[i].clone(),
            old_logprobs: Some(self.old[i].clone()),
            ref_logprobs: Some(self.reference[i].clone()),
            advantages: advantages[i].clone(),
            masked: case.masked && i == self.masked,
            ..TrainSample::default()
        };
        (0..self.old.len()).map(sample).collect()
    }

    /// Loss, and the slopes of each completion's log-probabilities and entropies.
    fn loss(&self, case: &Case, max_tokens: usize) -> (f64, [Vec<Vec<f32>>; 2]) {
        let grpo = config(&case.grpo);
        let loss: LossConfig = grpo.loss(grpo.entropy().weight(None));
        let mut micros = micro_batches(&self.samples(case), grpo.loss_norm(), max_tokens, PromptLayout::Repeated);
        let rows = |table: &[Vec<f32>], micro: &reckon::batch::MicroBatch| -> Vec<f32> {
            micro.samples.iter().flat_map(|rows| table[micro.targets[rows.start] as usize].clone()).collect()
        };
        let now: Vec<Vec<f32>> = micros.iter().map(|micro| rows(&self.now, micro)).collect();
        if let Some(selection) = loss.objective.selection() {
            select(&mut micros, &now, selection, &[]);
        }
        let mut slopes = self.old.iter().map(|row| vec![0.0; row.len()]).collect::<Vec<_>>();
        let mut entropy_slopes = slopes.clone();
        let mut sum = 0.0;
        for (micro, logprobs) in micros.iter().zip(now) {
            let entropies = rows(&self.entropies, micro);
            let found = token_losses(&TokenStats { logprobs, entropies }, micro, &loss);
            sum += found.stats.loss;
            for range in &micro.samples {
                let place = micro.targets[range.start] as usize;
                slopes[place].copy_from_slice(&found.gradient[range.clone()]);
                if !found.entropy_gradient.is_empty() {
                    entropy_slopes[place].copy_from_slice(&found.entropy_gradient[range.clone()]);
                }
            }
        }
        (sum, [slopes, entropy_slopes])
    }

    fn advantages(&self, case: &Case) -> Vec<Vec<f32>> {
        let grpo = config(&case.grpo);
        let rewards = if case.rewards.as_deref() == Some("right") { &self.right } else { &self.rewards };
        let kl = |i: usize| -> Vec<f32> {
            let term = |(old, reference): (&f32, &f32)| {
                (grpo.kl_coef * grpo.kl_estimator.estimate(f64::from(*old) - f64::from(*reference)).0) as f32
            };
            self.old[i].iter().zip(&self.reference[i]).map(term).collect()
        };
        let outcome = |i: usize| Outcome {
            reward: Some(rewards[i]),
            parts: self.parts[i].iter().copied().map(Some).collect(),
            length: self.old[i].len(),
            kl: if grpo.kl_place == KlPlace::Reward { kl(i) } else { Vec::new() },
        };
        let group = |(g, greedy): (usize, &f32)| Outcomes {
            rollouts: (g * self.group..(g + 1) * self.group).map(outcome).collect(),
            weights: self.weights.clone(),
            greedy: Some(*greedy),
        };
        let groups: Vec<Outcomes> = self.greedy.iter().enumerate().map(group).collect();
        advantages(&groups, grpo.advantage, grpo.pass_k()).into_iter().flatten().collect()
    }

    /// The largest difference between what a peer says and what is said here.
    fn difference(&self, case: &Case) -> f64 {
        let mut largest = 0f64;
        if let (Some(loss), Some(gradient)) = (case.loss, &case.gradient) {
            for max_tokens in [usize::MAX, 30] {
                let (found, [slopes, entropy_slopes]) = self.loss(case, max_tokens);
                largest = largest.max((found - loss).abs()).max(distance(&slopes, gradient));
                if let Some(expected) = &case.entropy_gradient {
                    let bonus = config(&case.grpo).entropy_coef > 0.0;
                    largest = largest.max(if bonus { distance(&entropy_slopes, expected) } else { 0.0 });
                }
            }
        }
        if let Some(expected) = &case.values {
            largest = largest.max(distance(&self.advantages(case), expected));
        }
        if case.weights.is_some() || case.kept.is_some() {
            let mut samples = self.samples(case);
            config(&case.grpo).correction().unwrap().apply(&mut samples);
            if let Some(expected) = &case.weights {
                largest = largest.max(distance(samples.iter().flat_map(|sample| &sample.corrections), expected));
            }
            let kept: Vec<bool> = samples.iter().map(|sample| !sample.masked).collect();
            assert!(case.kept.as_ref().is_none_or(|expected| *expected == kept), "{}: {kept:?}", case.name);
        }
        largest
    }
}

#[test]
fn objectives_advantages_and_weights_are_those_of_other_trainers() {
    let Fixture { batch, cases } = serde_json::from_str(FIXTURE).unwrap();
    let document = include_str!("../../docs/objectives.md");
    let mut unwritten = Vec::new();
    let mut table = "| here | peer | largest difference |\n|---|---|---|\n".to_owned();
    for case in &cases {
        let (difference, row) = (batch.difference(case), format!("| {} | {} |", case.name, case.peer));
        table += &format!("{row} {difference:.0e} |\n");
        assert!(difference < TOLERANCE, "{row} {difference}");
        unwritten.extend((!document.contains(&row)).then_some(row));
    }
    std::io::stderr().write_all(table.as_bytes()).unwrap();
    assert!(cases.len() > 45 && unwritten.is_empty(), "docs/objectives.md lacks {unwritten:#?}");
}

#[test]
fn a_wrong_number_is_noticed() {
    for (name, wrong) in [
        ("clip, token_mean", "clip_high = 0.29"),
        ("GSPO", "ratio = 'sequence_token'\nclip_high = 0.28"),
        ("CISPO", "objective = 'cispo'\nclip_low = 0.2\nclip_high = 0.3"),
        ("SAPO", "objective = 'sapo'\nloss_weights = 'sequence_mean'\ntau_negative = 1.06"),
        ("length_weighted", "advantage = 'mean'"),
        ("mask_tokens", "correction = 'mask_tokens'\ncorrection_low = 0.7\ncorrection_high = 1.25"),
    ] {
        let Fixture { batch, cases } = serde_json::from_str(FIXTURE).unwrap();
        let case = cases.into_iter().find(|case| case.name == name).unwrap();
        let case = Case { grpo: wrong.into(), ..case };
        assert!(batch.difference(&case) > 1e-4, "{name}");
    }
}
