//! Curves that follow from the rollouts that a run kept: lengths by verdict, and words of reflection.

use std::collections::BTreeMap;

use crate::run::Run;
use crate::transcripts::{Group, Verdict};
use crate::words::WordList;

/// What the names of these curves begin with: no metric of `metrics.jsonl` does.
pub const PREFIX: &str = "kept/";

/// What each of them is.
pub fn meaning(name: &str) -> Option<String> {
    let name = name.strip_prefix(PREFIX)?;
    if let Some(list) = name.strip_prefix("words_").and_then(WordList::named) {
        return Some(format!("words in a completion, mean over the rollouts kept of a step: {}", list.source));
    }
    let (what, verdict) = name.split_once('_')?;
    Some(match what {
        "len" => format!("mean number of tokens of the kept completions that are {verdict}"),
        _ => format!("kept completions that are {verdict} / all kept completions of the step"),
    })
}

/// The figures of one step.
pub fn of(groups: &[Group]) -> BTreeMap<String, f64> {
    let rollouts: Vec<_> = groups.iter().flat_map(|group| &group.rollouts).collect();
    let mut found = BTreeMap::new();
    if rollouts.is_empty() {
        return found;
    }
    let mean = |sum: f64, count: usize| sum / count as f64;
    for verdict in &Verdict::ALL[..3] {
        let lengths: Vec<usize> =
            rollouts.iter().filter(|r| r.verdict() == *verdict).map(|rollout| rollout.tokens.len()).collect();
        found.insert(format!("{PREFIX}share_{}", verdict.name()), mean(lengths.len() as f64, rollouts.len()));
        if !lengths.is_empty() {
            let sum = lengths.iter().sum::<usize>() as f64;
            found.insert(format!("{PREFIX}len_{}", verdict.name()), mean(sum, lengths.len()));
        }
    }
    for list in WordList::drawn() {
        let count = rollouts.iter().map(|rollout| list.count(&rollout.completion)).sum::<usize>();
        found.insert(format!("{PREFIX}words_{}", list.name), mean(count as f64, rollouts.len()));
    }
    found
}

/// Puts the figures of `step` among a run's curves. A step without a record, as one under way is, is left out.
pub fn put(run: &mut Run, step: u64, figures: BTreeMap<String, f64>) {
    let Ok(at) = run.steps.binary_search(&step) else { return };
    for (name, value) in figures {
        run.series.entry(name).or_insert_with(|| vec![f64::NAN; run.steps.len()])[at] = value;
    }
}
