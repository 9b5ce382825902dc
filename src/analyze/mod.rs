//! What the rollouts that a run has saved show beyond its metrics: behaviours, whether reflection goes with right answers,
//! repetition and mixed languages, step by step; and by sampling anew, pass@k of the base against the trained model.
//! A judge that is a language model counts what no parser reads ([`behaviour_judge`]).

pub mod behaviour_judge;
pub mod texts;

use anyhow::Result;
use reckon_datasets::Example;
use reckon_lab::stats::{Interval, pass_at_k, wilson};
use serde::Serialize;

use crate::behaviours::{Behaviours, Read};
use crate::eval::{passes, readable};
use crate::groups::Rollouts;
use crate::judge::Judge;
use crate::prompt::Prompt;
use crate::rollout::SampleKey;
use crate::run::rollouts::{SavedGroup, SavedRollout};

/// The step number that stands for pass@k in the names of random numbers.
const PASS_STEP: u64 = u64::MAX - 2;

/// Completions of one kind, and how many of them are right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Split {
    /// Those that pass.
    pub right: usize,
    /// All that were judged.
    pub all: usize,
}

impl Split {
    /// Share of right ones with its 95% interval (Wilson); `None` where there is none.
    pub fn accuracy(&self) -> Option<(f64, Interval)> {
        (self.all > 0).then(|| (self.right as f64 / self.all as f64, wilson(self.right, self.all)))
    }

    fn add(&mut self, passed: bool) {
        self.right += usize::from(passed);
        self.all += 1;
    }
}

/// What the rollouts of one step show.
#[derive(Debug, Clone, Serialize)]
pub struct StepAnalysis {
    /// The step that sampled them.
    pub step: u64,
    /// Completions.
    pub completions: usize,
    /// All that were judged.
    pub all: Split,
    /// Those that turn back or doubt, as [`Behaviours::reflects`] says.
    pub reflecting: Split,
    /// Those that do not.
    pub direct: Split,
    /// What completions do, by name.
    pub behaviours: Vec<(String, f64)>,
    /// Mean over completions of the share of their 4-grams of tokens that they have said before.
    pub repetition: f64,
    /// Share of completions that end in a loop.
    pub loops: f64,
    /// Share of completions in which a second script has at least a twentieth of the letters.
    pub mixed_languages: f64,
}

/// The analysis of the groups of one step.
pub fn analyze_step(groups: &[SavedGroup], judge: &Judge, behaviours: &Behaviours) -> StepAnalysis {
    let all = || groups.iter().flat_map(|group| group.rollouts.iter().map(move |rollout| (group, rollout)));
    let mut found = StepAnalysis {
        step: groups.first().map_or(0, |group| group.step),
        completions: all().count(),
        all: Split::default(),
        reflecting: Split::default(),
        direct: Split::default(),
        behaviours: behaviours.measure(all().map(read)),
        repetition: mean(all().map(|(_, rollout)| texts::repeated(&rollout.tokens))),
        loops: mean(all().map(|(_, rollout)| f64::from(texts::ends_in_a_loop(&rollout.tokens)))),
        mixed_languages: mean(all().map(|(_, rollout)| f64::from(texts::mixes_scripts(&rollout.completion)))),
    };
    for (group, rollout) in all() {
        let Some(passed) = passed(judge, group, rollout) else { continue };
        found.all.add(passed);
        match behaviours.reflects(read((group, rollout))) {
            Some(true) => found.reflecting.add(passed),
            Some(false) => found.direct.add(passed),
            None => {}
        }
    }
    found
}

fn read<'a>((group, rollout): (&'a SavedGroup, &'a SavedRollout)) -> Read<'a> {
    Read { source: group.source, example: &group.example, text: &rollout.completion, tokens: rollout.tokens.len() }
}

/// Whether a saved completion ended by itself and is right; `None` where it was not judged.
pub fn passed(judge: &Judge, group: &SavedGroup, rollout: &SavedRollout) -> Option<bool> {
    rollout.score.total?;
    Some(!rollout.truncated && judge.rubric(group.source).accepts(&group.example, &rollout.score))
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
    sum / count.max(1) as f64
}

/// How many of each problem's completions are right.
#[derive(Debug, Clone, Serialize)]
pub struct Solved {
    /// Completions of each problem that were judged.
    pub samples: usize,
    /// Right ones, by problem.
    pub right: Vec<usize>,
}

impl Solved {
    /// pass@k by the unbiased estimator of Chen et al. (arXiv:2107.03374), mean over problems; `k` is at most the samples.
    pub fn pass_at(&self, k: usize) -> f64 {
        mean(self.right.iter().map(|&right| pass_at_k(self.samples, right, k)))
    }
}

/// Samples each of the problems `samples` times and counts what is right. What was not judged counts as wrong.
pub fn solve(rollouts: Rollouts, prompts: Vec<Prompt>, samples: usize) -> Result<Solved> {
    let (prompts, _) = readable(rollouts.judge, prompts);
    let (groups, _) = rollouts.groups(prompts, samples, SampleKey { seed: 0, step: PASS_STEP })?;
    let right = groups.iter().map(|group| {
        let verdicts = group.rollouts.iter().map(|rollout| passes(rollouts.judge, group, rollout));
        verdicts.filter(|passed| *passed == Some(true)).count()
    });
    Ok(Solved { samples, right: right.collect() })
}

/// 1, 2, 4 and so on up to `most`, itself included.
pub fn powers_of_two(most: usize) -> Vec<usize> {
    let mut all: Vec<usize> = std::iter::successors(Some(1), |k| Some(k * 2)).take_while(|k| *k < most).collect();
    all.push(most.max(1));
    all
}

/// What a judge is shown of a completion.
pub fn transcript(example: &Example, completion: &str) -> String {
    format!("Problem:\n{}\n\nReasoning to look at:\n{completion}", example.question)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pass_at_k_is_a_mean_over_problems() {
        let solved = Solved { samples: 4, right: vec![0, 2, 4] };
        assert!((solved.pass_at(1) - 0.5).abs() < 1e-12);
        // 1 - C(2, 2) / C(4, 2) = 5/6 for the second.
        assert!((solved.pass_at(2) - (0.0 + 5.0 / 6.0 + 1.0) / 3.0).abs() < 1e-12);
        assert!((solved.pass_at(4) - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn ks_are_powers_of_two_up_to_the_samples() {
        assert_eq!(powers_of_two(128), [1, 2, 4, 8, 16, 32, 64, 128]);
        assert_eq!(powers_of_two(6), [1, 2, 4, 6]);
        assert_eq!(powers_of_two(1), [1]);
    }

    #[test]
    fn a_share_has_an_interval_and_none_has_none() {
        assert!(Split::default().accuracy().is_none());
        let (share, interval) = Split { right: 3, all: 4 }.accuracy().unwrap();
        assert!(share == 0.75 && interval.low < 0.75 && interval.high > 0.75);
    }
}
