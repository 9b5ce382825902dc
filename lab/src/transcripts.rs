//! The rollouts of a step, as `rollouts/step-000001.jsonl` has them: groups with their completions, what the verifiers
//! said, and for some groups what each token was worth.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::run::{step_files, whole_lines};

/// All rollouts of a prompt.
#[derive(Clone, Debug, Deserialize)]
pub struct Group {
    /// What was asked.
    pub example: Asked,
    /// In the order of their sample numbers.
    pub rollouts: Vec<Rollout>,
}

/// The example behind a prompt.
#[derive(Clone, Debug, Deserialize)]
pub struct Asked {
    /// Its name in its dataset.
    #[serde(default)]
    pub id: String,
    /// The question.
    pub question: String,
    /// The reference answer.
    #[serde(default)]
    pub answer: Value,
}

/// A completion with its reward.
#[derive(Clone, Debug, Deserialize)]
pub struct Rollout {
    /// The text that was judged.
    pub completion: String,
    /// As many entries as tokens were sampled.
    #[serde(default)]
    pub tokens: Vec<IgnoredAny>,
    /// Whether the limit of tokens cut it.
    #[serde(default)]
    pub truncated: bool,
    /// What the rubric said.
    pub score: Score,
    /// What the policy was trained on; null where it was not judged.
    pub reward: Option<f64>,
    /// Whether it ended by itself and is right.
    #[serde(default)]
    pub passed: Option<bool>,
    /// Its advantage; absent where its group was left out.
    #[serde(default)]
    pub advantage: Option<f64>,
    /// What is known of each token; of some groups of a step.
    #[serde(default)]
    pub by_token: ByToken,
}

/// What is known of each token, in order; empty where nothing was kept.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ByToken {
    /// Bytes of the completion before the first sampled token.
    pub start: usize,
    /// Bytes of text that the token added; they may go on beyond the text, by a stop token.
    pub pieces: Vec<usize>,
    /// Log-probability at sampling.
    pub logprobs: Vec<f64>,
    /// Entropy of the distribution that it was drawn from, in nats; empty where nothing was learned from the completion.
    #[serde(default)]
    pub entropies: Vec<f64>,
}

/// What the rubric said.
#[derive(Clone, Debug, Deserialize)]
pub struct Score {
    /// The reward before controls and rules on length.
    pub total: Option<f64>,
    /// One verdict for each verifier.
    #[serde(default)]
    pub parts: Vec<Part>,
}

/// A verifier's verdict.
#[derive(Clone, Debug, Deserialize)]
pub struct Part {
    /// How it came about, such as `pass`.
    #[serde(default)]
    pub outcome: String,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
}

/// What became of a completion, each in one of four ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It ended by itself and is right.
    Right,
    /// It ended by itself and is not.
    Wrong,
    /// The limit of tokens cut it.
    Truncated,
    /// Nobody judged it.
    Unjudged,
}

impl Verdict {
    /// All of them, in the order of their numbers on a page.
    pub const ALL: [Self; 4] = [Self::Right, Self::Wrong, Self::Truncated, Self::Unjudged];

    /// The word for people.
    pub fn name(self) -> &'static str {
        ["right", "wrong", "truncated", "not judged"][self as usize]
    }
}

impl Rollout {
    /// What became of it. A run of an older build says whether it passed by the rubric's total alone.
    pub fn verdict(&self) -> Verdict {
        match (self.truncated, self.passed, self.score.total) {
            (true, ..) => Verdict::Truncated,
            (_, None, None) => Verdict::Unjudged,
            (_, Some(true), _) => Verdict::Right,
            (_, None, Some(total)) if total >= 1.0 => Verdict::Right,
            _ => Verdict::Wrong,
        }
    }
}

/// The steps of the run in `path` whose rollouts were kept.
pub fn files(path: &Path) -> Vec<(u64, PathBuf)> {
    step_files(&path.join("rollouts"), ".jsonl")
}

/// The groups of one file; lines that are cut or no group are left out and said.
pub fn read(file: &Path, remarks: &mut Vec<String>) -> Result<Vec<Group>> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let mut groups = Vec::new();
    for line in whole_lines(&bytes, &name, remarks) {
        match serde_json::from_str(line) {
            Ok(group) => groups.push(group),
            Err(error) => remarks.push(format!("a line of {name} is no group: {error}")),
        }
    }
    Ok(groups)
}
