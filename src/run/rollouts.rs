//! Rollouts on disk. For people, `step-000001.txt` holds two completions of each of the first four prompts; for
//! `reckon verify replay`, `step-000001.jsonl` holds every group of the step, one in a line, with all that the verifiers
//! were given and said.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use reckon_datasets::Example;
use reckon_rewards::{Score, Submission};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{RunFolder, step_name};
use crate::disk::{read_text, write_file};
use crate::judge::{Group, Rollout};
use crate::rollout::FinishReason;

/// A group as it is saved.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedGroup {
    /// The step that sampled it.
    pub step: u64,
    /// Which of the run's data sources it came from.
    pub source: usize,
    /// What was asked.
    pub example: Example,
    /// In the order of their sample numbers.
    pub rollouts: Vec<SavedRollout>,
}

/// A rollout as it is saved.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedRollout {
    /// What was judged: the prefilled start and the sampled text.
    pub completion: String,
    /// The sampled tokens.
    pub tokens: Vec<u32>,
    /// Whether the limit of tokens cut it.
    pub truncated: bool,
    /// What the rubric said.
    pub score: Score,
    /// What the policy was trained on: the total, unless a control or a rule on length replaced it. Null where the
    /// completion was not judged.
    pub reward: Option<f32>,
}

impl SavedGroup {
    fn of(step: u64, group: &Group) -> Self {
        let saved = |rollout: &Rollout| SavedRollout {
            completion: [&group.prompt.prefill, rollout.completion.text.as_str()].concat(),
            tokens: rollout.completion.tokens.clone(),
            truncated: rollout.completion.finish == FinishReason::Length,
            score: rollout.score.clone(),
            reward: rollout.reward,
        };
        Self {
            step,
            source: group.prompt.source,
            example: (*group.prompt.example).clone(),
            rollouts: group.rollouts.iter().map(saved).collect(),
        }
    }

    /// What the verifiers are given.
    pub fn submissions(&self) -> Vec<Submission<'_>> {
        let rollouts = self.rollouts.iter();
        rollouts
            .map(|saved| Submission {
                example: &self.example,
                completion: &saved.completion,
                tokens: &saved.tokens,
                truncated: saved.truncated,
            })
            .collect()
    }
}

/// Writes both files of a step.
pub fn write(folder: &RunFolder, step: u64, groups: &[Group]) -> Result<()> {
    let place = |extension: &str| folder.rollouts().join(format!("{}.{extension}", step_name(step)));
    write_file(&place("txt"), readable(groups).as_bytes()).context("cannot write the sample of rollouts")?;
    let mut lines = Vec::new();
    for group in groups {
        serde_json::to_writer(&mut lines, &SavedGroup::of(step, group))?;
        lines.push(b'\n');
    }
    write_file(&place("jsonl"), &lines).context("cannot write the rollouts")
}

/// The files of whole steps in the run `run`, in the order of their steps.
pub fn files(run: &Path) -> Result<Vec<PathBuf>> {
    let folder = run.join("rollouts");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    Ok(paths)
}

/// The groups of one file.
pub fn read(path: &Path) -> Result<Vec<SavedGroup>> {
    let text = read_text(path)?;
    let parse = |(index, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| format!("{}, line {}", path.display(), index + 1))
    };
    text.lines().enumerate().map(parse).collect()
}

fn readable(groups: &[Group]) -> String {
    let mut text = String::new();
    for group in groups.iter().take(4) {
        text += &format!("# {}\n{}\n", group.prompt.example.id, group.prompt.example.question);
        for rollout in group.rollouts.iter().take(2) {
            let reward = rollout.reward.map_or("not judged".to_owned(), |reward| format!("reward {reward}"));
            text += &format!("\n{reward} ({:?})\n{}\n", rollout.completion.finish, rollout.completion.text);
            for verdict in &rollout.score.parts {
                text += &format!("  {:?}: {}\n", verdict.outcome, verdict.reason);
            }
        }
        text += "\n";
    }
    text
}
