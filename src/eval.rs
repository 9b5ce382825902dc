//! Held-out accuracy, and the statistics of completions that training and evaluation share.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::behaviours::{Behaviours, completions};
use crate::config::passes_at;
use crate::environment::tool_use;
use crate::groups::Rollouts;
use crate::judge::{Group, Judge, Rollout};
use crate::metrics::Record;
use crate::prompt::Prompt;
use crate::rollout::{FinishReason, SampleKey};
use reckon_lab::stats::pass_at_k;
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
    /// `pass@k`: the chance that one of `k` completions of a problem is right, for a few `k`.
    #[serde(default)]
    pub passes_at: Vec<(usize, f64)>,
    /// `maj@k`: the completions of a problem, and how often the answer that most of them give is right.
    #[serde(default)]
    pub majority: Option<(usize, f64)>,
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
    /// What the completions do, by name: [`Behaviours::measure`], and before it what they call.
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
    let votes: Vec<Vec<Vote>> = groups.iter().map(|group| votes(rollouts.judge, group)).collect();
    let n = judged.iter().filter(|judged| judged.passed.is_some()).count().max(1) as f64;
    let accuracy = judged.iter().filter(|judged| judged.passed == Some(true)).count() as f64 / n;
    Ok(Evaluation {
        accuracy,
        passes_at: passes_at(samples).into_iter().filter_map(|k| Some((k, pass_at(&votes, k)?))).collect(),
        majority: (samples > 1).then(|| majority(&votes)).flatten().map(|share| (samples, share)),
        not_judged: mean(&groups, |r| f64::from(r.score.total.is_none())),
        margin: 1.96 * (accuracy * (1.0 - accuracy) / n).sqrt(),
        len_mean: mean(&groups, |r| r.completion.sampled_len() as f64),
        len_right: length_of(rollouts.judge, &groups, true),
        len_wrong: length_of(rollouts.judge, &groups, false),
        len_max: longest(&groups),
        truncated: mean(&groups, |r| f64::from(is_cut(r))),
        entropy: surprise(&groups),
        behaviours: doings(rollouts, &groups),
        judged,
        unreadable,
    })
}

/// What completions do, and what they call.
fn doings(rollouts: Rollouts, groups: &[Group]) -> Vec<(String, f64)> {
    let called = rollouts.environment.map(|_| tool_use(groups)).unwrap_or_default();
    let called = called.into_iter().map(|(name, value)| (name.to_owned(), value));
    called.chain(rollouts.behaviours.measure(completions(groups))).collect()
}

/// A judged completion: whether it passes, and the answer that was read from it.
type Vote<'a> = (bool, Option<&'a str>);

fn votes<'a>(judge: &Judge, group: &'a Group) -> Vec<Vote<'a>> {
    let answer = |rollout: &'a Rollout| rollout.score.parts.iter().find_map(|verdict| verdict.parsed.as_deref());
    group.rollouts.iter().filter_map(|rollout| Some((passes(judge, group, rollout)?, answer(rollout)))).collect()
}

/// The mean of pass@k over the problems with at least `k` judged completions. `None` where there is no such problem.
fn pass_at(votes: &[Vec<Vote>], k: usize) -> Option<f64> {
    let right = |votes: &[Vote]| votes.iter().filter(|(passed, _)| *passed).count();
    let of_problem = |votes: &Vec<Vote>| pass_at_k(votes.len(), right(votes), k);
    let found: Vec<f64> = votes.iter().filter(|votes| votes.len() >= k).map(of_problem).collect();
    (!found.is_empty()).then(|| found.iter().sum::<f64>() / found.len() as f64)
}

/// Mean over problems of how often the answer that most completions give is right; of answers with as many votes each
/// counts the same, and a problem without an answer is wrong. `None` without a judged problem.
fn majority(votes: &[Vec<Vote>]) -> Option<f64> {
    let of_problem = |votes: &Vec<Vote>| {
        let mut answers: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (passed, answer) in votes.iter().filter_map(|(passed, answer)| Some((passed, (*answer)?))) {
            let (count, right) = answers.entry(answer).or_default();
            *count += 1;
            *right += usize::from(*passed);
        }
        let most = answers.values().map(|(count, _)| *count).max().unwrap_or(1);
        let first: Vec<f64> =
            answers.values().filter(|(count, _)| *count == most).map(|(n, c)| *c as f64 / *n as f64).collect();
        first.iter().sum::<f64>() / first.len().max(1) as f64
    };
    let found: Vec<f64> = votes.iter().filter(|votes| !votes.is_empty()).map(of_problem).collect();
    (!found.is_empty()).then(|| found.iter().sum::<f64>() / found.len() as f64)
}

/// Whether a completion ended by itself and is right, whatever shaping terms add to its reward; `None` where it was not
/// judged.
pub fn passes(judge: &Judge, group: &Group, rollout: &Rollout) -> Option<bool> {
    let accepts = || judge.rubric(group.prompt.source).accepts(&group.prompt.example, &rollout.score);
    rollout.score.total.map(|_| rollout.completion.finish == FinishReason::Stop && accepts())
}

/// What groups are told apart by: none of their judged completions is right, up to a quarter, and so on, all are.
pub const PASS_RATES: [&str; 6] = ["none", "to_25", "to_50", "to_75", "below_100", "all"];

/// How many groups have which share of right completions, in the order of [`PASS_RATES`]; those without a verdict are left
/// out.
pub fn difficulties(judge: &Judge, groups: &[Group]) -> [usize; 6] {
    let mut counts = [0; 6];
    for group in groups {
        let verdicts: Vec<bool> = group.rollouts.iter().filter_map(|rollout| passes(judge, group, rollout)).collect();
        let passed = verdicts.iter().filter(|passed| **passed).count();
        match verdicts.len() {
            0 => {}
            all if passed == all => counts[5] += 1,
            all => counts[(4 * passed).div_ceil(all)] += 1,
        }
    }
    counts
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
        self.record_as("eval", record);
    }

    /// As metrics of the held-out set that `prefix` names.
    pub fn record_as(&self, prefix: &str, record: &mut Record) {
        if self.not_judged < 1.0 {
            record.set(format!("{prefix}/pass@1"), self.accuracy);
        }
        self.passes_at.iter().for_each(|(k, share)| record.set(format!("{prefix}/pass@{k}"), *share));
        if let Some((k, share)) = self.majority {
            record.set(format!("{prefix}/maj@{k}"), share);
        }
        record.set(format!("{prefix}/not_judged_frac"), self.not_judged);
        record.set(format!("{prefix}/len_mean"), self.len_mean);
        record.set(format!("{prefix}/len_max"), self.len_max as f64);
        self.len_right.into_iter().for_each(|length| record.set(format!("{prefix}/len_right"), length));
        self.len_wrong.into_iter().for_each(|length| record.set(format!("{prefix}/len_wrong"), length));
        record.set(format!("{prefix}/truncated_frac"), self.truncated);
        record.set(format!("{prefix}/entropy"), self.entropy);
        self.behaviours.iter().for_each(|(name, value)| record.set(format!("{prefix}/{name}"), *value));
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
        write!(f, "{:.3} ± {:.3}, ", self.accuracy, self.margin)?;
        if let Some((k, share)) = self.passes_at.last() {
            write!(f, "pass@{k} {share:.3}, ")?;
        }
        write!(f, "{:.0} tokens", self.len_mean)?;
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
    groups.iter().flat_map(|g| &g.rollouts).map(|r| r.completion.sampled_len()).max().unwrap_or(0)
}

/// Mean tokens of the completions that ended by themselves and were judged so.
fn length_of(judge: &Judge, groups: &[Group], right: bool) -> Option<f64> {
    let judged = groups.iter().flat_map(|group| group.rollouts.iter().map(move |rollout| (group, rollout)));
    let of = judged.filter(|(group, rollout)| !is_cut(rollout) && passes(judge, group, rollout) == Some(right));
    let lengths: Vec<f64> = of.map(|(_, rollout)| rollout.completion.sampled_len() as f64).collect();
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
    record.set("completion/len_mean", mean(groups, |r| r.completion.sampled_len() as f64));
    record.set("completion/len_max", longest(groups) as f64);
    length_of(judge, groups, true).into_iter().for_each(|length| record.set("completion/len_right", length));
    length_of(judge, groups, false).into_iter().for_each(|length| record.set("completion/len_wrong", length));
    record.set("completion/truncated_frac", mean(groups, |r| f64::from(is_cut(r))));
    let verdicts = groups.iter().flat_map(|group| group.rollouts.iter().map(|r| passes(judge, group, r)));
    let (passed, judged) = verdicts.flatten().fold((0, 0), |(p, n), passed| (p + usize::from(passed), n + 1));
    if judged > 0 {
        record.set("completion/pass_frac", passed as f64 / judged as f64);
    }
    let counts = difficulties(judge, groups);
    for (name, count) in PASS_RATES.iter().zip(counts) {
        record.set(format!("group/pass_rate/{name}"), count as f64 / counts.iter().sum::<usize>().max(1) as f64);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pass_at_k_is_the_chance_that_one_of_k_is_right() {
        let of = |right: usize, wrong: usize| [vec![(true, None); right], vec![(false, None); wrong]].concat();
        let near = |found: Option<f64>, expected: f64| assert!((found.unwrap() - expected).abs() < 1e-12, "{found:?}");
        near(pass_at(&[of(1, 3)], 1), 0.25);
        // Of the 6 pairs of 1 + 3, 3 are all wrong; of 2 + 2 one.
        near(pass_at(&[of(1, 3)], 2), 0.5);
        near(pass_at(&[of(1, 3), of(2, 2)], 2), (0.5 + 5.0 / 6.0) / 2.0);
        near(pass_at(&[of(3, 1)], 2), 1.0);
        near(pass_at(&[of(0, 4)], 4), 0.0);
        // A problem with fewer judged completions is left out.
        near(pass_at(&[of(1, 3), of(1, 0)], 2), 0.5);
        assert_eq!(pass_at(&[of(1, 0)], 2), None);
    }

    #[test]
    fn a_majority_is_of_answers_and_ties_count_their_share() {
        let near = |votes: &[Vec<Vote>], expected: f64| {
            let found = majority(votes).unwrap();
            assert!((found - expected).abs() < 1e-12, "{votes:?}: {found}, not {expected}");
        };
        let (right, wrong, other) = ((true, Some("7")), (false, Some("8")), (false, Some("9")));
        near(&[vec![right, right, wrong]], 1.0);
        near(&[vec![right, wrong, wrong]], 0.0);
        near(&[vec![right, wrong]], 0.5);
        near(&[vec![right, wrong, other]], 1.0 / 3.0);
        // What gives no answer does not vote.
        near(&[vec![right, (false, None), (false, None)]], 1.0);
        near(&[vec![(false, None), (false, None)], vec![right]], 0.5);
        assert_eq!(majority(&[vec![]]), None);
    }
}
