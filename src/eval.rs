//! Held-out accuracy, and the statistics of completions that training and evaluation share.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::groups::Rollouts;
use crate::judge::{Group, Judge, Rollout};
use crate::metrics::Record;
use crate::prompt::Prompt;
use crate::rollout::{FinishReason, SampleKey};
use reckon_datasets::TraceStats;
use reckon_rewards::{Outcome, Verdict};

/// The step number that stands for evaluation in the names of random numbers: the same draws every time.
const EVAL_STEP: u64 = u64::MAX;

/// A held-out question with a completion of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Judged {
    /// What was asked.
    pub question: String,
    /// What came of it.
    pub completion: String,
    /// Whether it passes; `None` where it was not judged.
    pub passed: Option<bool>,
}

/// What an evaluation found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Evaluation {
    /// All completions, a prompt's side by side.
    pub judged: Vec<Judged>,
    /// What is wrong with each of the prompts whose example no verifier can read; they count nowhere.
    #[serde(default)]
    pub unreadable: Vec<String>,
    /// Share of the judged completions that pass (pass@1); 0 where none was judged.
    pub accuracy: f64,
    /// Share of all completions that no verifier judged.
    #[serde(default)]
    pub not_judged: f64,
    /// Half the width of its 95% interval (normal approximation).
    pub margin: f64,
    /// Mean tokens of a completion.
    pub len_mean: f64,
    /// Mean count of the letters `wait`, in any case.
    pub waits_mean: f64,
    /// Most attempts at the problem in one completion.
    pub attempts_max: usize,
}

/// Samples `samples` completions of each prompt and judges them.
pub fn evaluate(rollouts: Rollouts, prompts: Vec<Prompt>, samples: usize) -> Result<Evaluation> {
    let (prompts, unreadable) = readable(rollouts.judge, prompts);
    // The same random numbers for every run and every step: what changes between evaluations is the policy.
    let key = SampleKey { seed: 0, step: EVAL_STEP };
    let (groups, _) = rollouts.groups(prompts, samples, key)?;
    let judged = groups.iter().flat_map(|group| group.rollouts.iter().map(move |r| (group, r)));
    let judged: Vec<Judged> = judged
        .map(|(group, r)| Judged {
            question: group.prompt.example.question.clone(),
            completion: r.completion.text.clone(),
            passed: passes(rollouts.judge, group, r),
        })
        .collect();
    let n = judged.iter().filter(|judged| judged.passed.is_some()).count().max(1) as f64;
    let accuracy = judged.iter().filter(|judged| judged.passed == Some(true)).count() as f64 / n;
    Ok(Evaluation {
        accuracy,
        not_judged: mean(&groups, |r| f64::from(r.score.total.is_none())),
        margin: 1.96 * (accuracy * (1.0 - accuracy) / n).sqrt(),
        len_mean: mean(&groups, |r| r.completion.tokens.len() as f64),
        waits_mean: mean(&groups, |r| waits(&r.completion.text) as f64),
        attempts_max: groups.iter().flat_map(|g| g.rollouts.iter().filter_map(|r| attempts(g, r))).max().unwrap_or(0),
        judged,
        unreadable,
    })
}

/// Whether a completion ended by itself and is right, whatever shaping terms add to its reward; `None` where it was not
/// judged.
pub fn passes(judge: &Judge, group: &Group, rollout: &Rollout) -> Option<bool> {
    let accepts = || judge.rubric(group.prompt.source).accepts(&group.prompt.example, &rollout.score);
    rollout.score.total.map(|_| rollout.completion.finish == FinishReason::Stop && accepts())
}

/// The prompts whose examples can be judged, and what is wrong with each of the others.
pub fn readable(judge: &Judge, prompts: Vec<Prompt>) -> (Vec<Prompt>, Vec<String>) {
    let mut faults = Vec::new();
    let mut reads = |prompt: &Prompt| match judge.rubric(prompt.source).check(&prompt.example) {
        Ok(()) => true,
        Err(fault) => {
            faults.push(fault.to_string());
            false
        }
    };
    let readable = prompts.into_iter().filter(|prompt| reads(prompt)).collect();
    (readable, faults)
}

impl Evaluation {
    /// As metrics.
    pub fn record(&self, record: &mut Record) {
        if self.not_judged < 1.0 {
            record.set("eval/pass@1", self.accuracy);
        }
        record.set("eval/not_judged_frac", self.not_judged);
        record.set("eval/len_mean", self.len_mean);
        record.set("eval/waits_mean", self.waits_mean);
        record.set("eval/attempts_max", self.attempts_max as f64);
    }
}

/// On one line, for people: the accuracy first.
impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ± {:.3}, {:.0} tokens, ", self.accuracy, self.margin, self.len_mean)?;
        write!(f, "{:.2} waits, at most {} attempts", self.waits_mean, self.attempts_max)
    }
}

/// How often the letters `wait` stand in a text, in any case: a rough count of turns of self-correction.
pub fn waits(text: &str) -> usize {
    text.to_lowercase().matches("wait").count()
}

/// Attempts in a completion, read by the parser of countdown traces; `None` for other examples.
fn attempts(group: &Group, rollout: &Rollout) -> Option<usize> {
    let info = &group.prompt.example.info;
    let numbers: Vec<i64> = info.get("numbers")?.as_array()?.iter().filter_map(serde_json::Value::as_i64).collect();
    let target = info.get("target")?.as_i64()?;
    Some(TraceStats::of(&rollout.completion.text, &numbers, target).attempts)
}

fn mean(groups: &[Group], f: impl Fn(&Rollout) -> f64) -> f64 {
    let values: Vec<f64> = groups.iter().flat_map(|g| &g.rollouts).map(f).collect();
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The statistics of a step's rollouts.
///
/// `verifiers` are the names of each source's rubric; a name that several have is one metric over their rollouts.
pub fn record_rollouts(record: &mut Record, groups: &[Group], verifiers: &[Vec<String>]) {
    let rewards: Vec<f64> = groups.iter().flat_map(Group::rewards).flatten().map(f64::from).collect();
    if !rewards.is_empty() {
        let over = |sum: f64| sum / rewards.len() as f64;
        let reward = over(rewards.iter().sum());
        record.set("reward/mean", reward);
        record.set("reward/std", over(rewards.iter().map(|r| (r - reward).powi(2)).sum()).sqrt());
    }
    record.set("reward/not_judged_frac", mean(groups, |r| f64::from(r.reward.is_none())));
    let names: BTreeSet<&String> = verifiers.iter().flatten().collect();
    names.into_iter().for_each(|name| record_verifier(record, groups, verifiers, name));
    record.set("completion/len_mean", mean(groups, |r| r.completion.tokens.len() as f64));
    let longest = groups.iter().flat_map(|g| &g.rollouts).map(|r| r.completion.tokens.len()).max();
    record.set("completion/len_max", longest.unwrap_or(0) as f64);
    let cut = |r: &Rollout| f64::from(r.completion.finish == FinishReason::Length);
    record.set("completion/truncated_frac", mean(groups, cut));
    record.set("completion/waits_mean", mean(groups, |r| waits(&r.completion.text) as f64));
    let attempts: Vec<f64> =
        groups.iter().flat_map(|g| g.rollouts.iter().filter_map(|r| attempts(g, r).map(|n| n as f64))).collect();
    if !attempts.is_empty() {
        record.set("completion/attempts_mean", attempts.iter().sum::<f64>() / attempts.len() as f64);
    }
}

/// What one verifier said of the rollouts that it was given.
fn record_verifier(record: &mut Record, groups: &[Group], verifiers: &[Vec<String>], name: &String) {
    let place = |group: &Group| verifiers[group.prompt.source].iter().position(|known| known == name);
    let of_group = |group| place(group).into_iter().flat_map(move |part| group_verdicts(group, part));
    let verdicts: Vec<&Verdict> = groups.iter().flat_map(of_group).collect();
    if verdicts.is_empty() {
        // No prompt of its source was drawn: there is nothing to report.
        return;
    }
    let judged: Vec<f64> = verdicts.iter().filter_map(|v| v.judged()).map(f64::from).collect();
    if !judged.is_empty() {
        record.set(format!("reward/{name}"), judged.iter().sum::<f64>() / judged.len() as f64);
    }
    for (outcome, of) in Outcome::COUNTED {
        let count = verdicts.iter().filter(|v| v.outcome == outcome).count();
        record.set(format!("verdict/{name}/{of}"), count as f64 / verdicts.len() as f64);
    }
}

/// The verdicts that part `part` of the rubric gave a group.
fn group_verdicts(group: &Group, part: usize) -> impl Iterator<Item = &Verdict> {
    group.rollouts.iter().filter_map(move |rollout| rollout.score.parts.get(part))
}
