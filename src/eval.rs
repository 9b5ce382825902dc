//! Held-out accuracy, and the statistics of completions that training and evaluation share.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::behaviours::{Behaviours, completions};
use crate::groups::Rollouts;
use crate::judge::{Group, Judge, Rollout};
use crate::metrics::Record;
use crate::prompt::Prompt;
use crate::rollout::{FinishReason, SampleKey};
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
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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
    /// The same of those that ended by themselves and pass; `None` where there is none.
    #[serde(default)]
    pub len_right: Option<f64>,
    /// The same of those that ended by themselves and do not pass.
    #[serde(default)]
    pub len_wrong: Option<f64>,
    /// Tokens of the longest.
    #[serde(default)]
    pub len_max: usize,
    /// Share of the completions that reached the limit of tokens.
    #[serde(default)]
    pub truncated: f64,
    /// Mean over the sampled tokens of -ln of their probability: at temperature 1 an estimate of the entropy, in nats.
    #[serde(default)]
    pub entropy: f64,
    /// What the completions do, by name: [`Behaviours::measure`].
    #[serde(default)]
    pub behaviours: Vec<(String, f64)>,
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
        len_right: length_of(rollouts.judge, &groups, true),
        len_wrong: length_of(rollouts.judge, &groups, false),
        len_max: longest(&groups),
        truncated: mean(&groups, |r| f64::from(is_cut(r))),
        entropy: surprise(&groups),
        behaviours: rollouts.behaviours.measure(completions(&groups)),
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
        record.set("eval/len_max", self.len_max as f64);
        self.len_right.into_iter().for_each(|length| record.set("eval/len_right", length));
        self.len_wrong.into_iter().for_each(|length| record.set("eval/len_wrong", length));
        record.set("eval/truncated_frac", self.truncated);
        record.set("eval/entropy", self.entropy);
        self.behaviours.iter().for_each(|(name, value)| record.set(format!("eval/{name}"), *value));
    }

    /// What the completions do, under this name.
    pub fn behaviour(&self, name: &str) -> Option<f64> {
        self.behaviours.iter().find(|(found, _)| found == name).map(|(_, value)| *value)
    }
}

/// How many behaviours a line for people has room for.
const SHOWN: usize = 3;

/// On one line, for people: the accuracy first.
impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ± {:.3}, {:.0} tokens", self.accuracy, self.margin, self.len_mean)?;
        let mut apart = Vec::new();
        apart.extend(self.len_right.map(|length| format!("right {length:.0}")));
        apart.extend(self.len_wrong.map(|length| format!("wrong {length:.0}")));
        apart.push(format!("{:.1}% cut", 100.0 * self.truncated));
        write!(f, " ({}), entropy {:.2}", apart.join(", "), self.entropy)?;
        for (name, value) in self.behaviours.iter().take(SHOWN) {
            write!(f, ", {value:.2} {}", in_words(name))?;
        }
        Ok(())
    }
}

/// The name of a behaviour for people: `attempts` of `behaviour/attempts`, `aha-r1 words` of `words/aha-r1/mean`.
pub fn in_words(name: &str) -> String {
    name.split_once('/').map_or(name, |(_, name)| name).replace("/mean", " words").replace(['/', '_'], " ")
}

/// Whether a completion reached the limit of new tokens.
fn is_cut(rollout: &Rollout) -> bool {
    rollout.completion.finish == FinishReason::Length
}

/// Tokens of the longest completion.
fn longest(groups: &[Group]) -> usize {
    groups.iter().flat_map(|g| &g.rollouts).map(|r| r.completion.tokens.len()).max().unwrap_or(0)
}

/// Mean tokens of the completions that ended by themselves and were judged so.
fn length_of(judge: &Judge, groups: &[Group], right: bool) -> Option<f64> {
    let judged = groups.iter().flat_map(|group| group.rollouts.iter().map(move |rollout| (group, rollout)));
    let of = judged.filter(|(group, rollout)| !is_cut(rollout) && passes(judge, group, rollout) == Some(right));
    let lengths: Vec<f64> = of.map(|(_, rollout)| rollout.completion.tokens.len() as f64).collect();
    (!lengths.is_empty()).then(|| lengths.iter().sum::<f64>() / lengths.len() as f64)
}

/// Mean of -ln of the probability over all sampled tokens.
fn surprise(groups: &[Group]) -> f64 {
    let logprobs = groups.iter().flat_map(|g| &g.rollouts).flat_map(|r| &r.completion.logprobs);
    let (sum, count) = logprobs.fold((0.0, 0usize), |(sum, n), logprob| (sum - f64::from(*logprob), n + 1));
    sum / count.max(1) as f64
}

fn mean(groups: &[Group], f: impl Fn(&Rollout) -> f64) -> f64 {
    let values: Vec<f64> = groups.iter().flat_map(|g| &g.rollouts).map(f).collect();
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The statistics of a step's rollouts. A verifier's name that several sources have is one metric over their rollouts.
pub fn record_rollouts(record: &mut Record, groups: &[Group], judge: &Judge, behaviours: &Behaviours) {
    let rewards: Vec<f64> = groups.iter().flat_map(Group::rewards).flatten().map(f64::from).collect();
    if !rewards.is_empty() {
        let over = |sum: f64| sum / rewards.len() as f64;
        let reward = over(rewards.iter().sum());
        record.set("reward/mean", reward);
        record.set("reward/std", over(rewards.iter().map(|r| (r - reward).powi(2)).sum()).sqrt());
    }
    record.set("reward/not_judged_frac", mean(groups, |r| f64::from(r.reward.is_none())));
    let verifiers = judge.names();
    let names: BTreeSet<&String> = verifiers.iter().flatten().collect();
    names.into_iter().for_each(|name| record_verifier(record, groups, &verifiers, name));
    record.set("completion/len_mean", mean(groups, |r| r.completion.tokens.len() as f64));
    record.set("completion/len_max", longest(groups) as f64);
    length_of(judge, groups, true).into_iter().for_each(|length| record.set("completion/len_right", length));
    length_of(judge, groups, false).into_iter().for_each(|length| record.set("completion/len_wrong", length));
    record.set("completion/truncated_frac", mean(groups, |r| f64::from(is_cut(r))));
    let verdicts = groups.iter().flat_map(|group| group.rollouts.iter().map(|r| passes(judge, group, r)));
    let (passed, judged) = verdicts.flatten().fold((0, 0), |(p, n), passed| (p + usize::from(passed), n + 1));
    if judged > 0 {
        record.set("completion/pass_frac", passed as f64 / judged as f64);
    }
    behaviours.measure(completions(groups)).into_iter().for_each(|(name, value)| record.set(name, value));
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
