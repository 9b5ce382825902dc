//! Rollouts on disk. For people, `step-000001.txt` holds two completions of each of the first four prompts; for
//! `reckon verify replay` and `reckon report`, `step-000001.jsonl` holds every group of the step, one in a line, with all
//! that the verifiers were given and said, and for some groups what is known of each token. `live.jsonl` holds a group of
//! the step just done.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use reckon_datasets::Example;
use reckon_rewards::{Score, Submission};
use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer;

use crate::checkpoint::{RunFolder, step_name};
use crate::disk::{read_text, write_file};
use crate::eval::passes;
use crate::judge::{Group, Judge, Rollout};
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
    /// The sampled tokens; what tools said is in the text alone.
    pub tokens: Vec<u32>,
    /// Whether the limit of tokens cut it.
    pub truncated: bool,
    /// The rewards that tools gave for its calls, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewards: Vec<f64>,
    /// What the rubric said.
    pub score: Score,
    /// What the policy was trained on: the total, unless a control or a rule on length replaced it. Null where the
    /// completion was not judged.
    pub reward: Option<f32>,
    /// Whether it ended by itself and is right, whatever the reward was. Null where it was not judged.
    #[serde(default)]
    pub passed: Option<bool>,
    /// The mean of its tokens' advantages; absent where its group was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advantage: Option<f32>,
    /// What is known of each token; of `log.token_groups` groups of a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_token: Option<ByToken>,
}

/// What is known of each token of a completion, in its order; decimals have three places.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ByToken {
    /// Bytes of the completion before the first sampled token: a prefilled start.
    pub start: usize,
    /// Bytes of text that the token added; those of a stop token are not in the completion.
    pub pieces: Vec<usize>,
    /// Log-probability that it was sampled at; 0 for what a tool said.
    pub logprobs: Vec<f32>,
    /// Entropy in nats of the distribution that it was drawn from; empty where nothing was learned from the completion.
    pub entropies: Vec<f32>,
}

/// What saving needs to know of the run.
#[derive(Clone, Copy)]
pub struct Saving<'a> {
    /// Says whether a completion passes.
    pub judge: &'a Judge,
    /// Says which text a token is.
    pub tokenizer: &'a Tokenizer,
    /// Groups of a step whose tokens are described one by one.
    pub token_groups: usize,
}

impl ByToken {
    fn of(prefill: &str, rollout: &Rollout, tokenizer: &Tokenizer) -> Self {
        let mut stream = tokenizer.decode_stream(false);
        // A token that ends within a character adds nothing, and the one that ends the character all of it.
        let mut piece = |&token: &u32| stream.step(token).ok().flatten().map_or(0, |text| text.len());
        let entropies = rollout.learned.as_ref().map_or(&[][..], |learned| &learned.entropies);
        // Adding 0 makes 0 of -0, which would be printed with its sign.
        // What a tool said was certain.
        let rounded = |values: &[f32]| {
            let (mut values, sampled) = (values.iter(), rollout.completion.is_sampled());
            let value = |sampled: bool| if sampled { values.next() } else { Some(&0.0) };
            sampled.map_while(value).map(|value| (value * 1000.0).round() / 1000.0 + 0.0).collect()
        };
        Self {
            start: prefill.len(),
            pieces: rollout.completion.tokens.iter().map(&mut piece).collect(),
            logprobs: rounded(&rollout.completion.logprobs),
            entropies: if entropies.is_empty() { Vec::new() } else { rounded(entropies) },
        }
    }
}

impl SavedGroup {
    fn of(step: u64, group: &Group, saving: Saving, by_token: bool) -> Self {
        let prefill = &group.prompt.prefill;
        let saved = |rollout: &Rollout| SavedRollout {
            completion: [prefill, rollout.completion.text.as_str()].concat(),
            tokens: rollout.completion.sampled(),
            truncated: rollout.completion.finish == FinishReason::Length,
            rewards: rollout.completion.tools.rewards.clone(),
            score: rollout.score.clone(),
            reward: rollout.reward,
            passed: passes(saving.judge, group, rollout),
            advantage: rollout.learned.as_ref().map(|learned| learned.advantage),
            by_token: by_token.then(|| ByToken::of(prefill, rollout, saving.tokenizer)),
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
                rewards: &saved.rewards,
            })
            .collect()
    }
}

/// Writes both files of a step.
pub fn write(folder: &RunFolder, step: u64, groups: &[Group], saving: Saving) -> Result<()> {
    let place = |extension: &str| folder.rollouts().join(format!("{}.{extension}", step_name(step)));
    write_file(&place("txt"), readable(groups).as_bytes()).context("cannot write the sample of rollouts")?;
    let mut lines = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        serde_json::to_writer(&mut lines, &SavedGroup::of(step, group, saving, index < saving.token_groups))?;
        lines.push(b'\n');
    }
    write_file(&place("jsonl"), &lines).context("cannot write the rollouts")
}

/// Writes a group of the step just done, in place of the one before. Nobody goes on from it, so it is not flushed.
pub fn write_live(folder: &RunFolder, step: u64, groups: &[Group], saving: Saving) -> Result<()> {
    let Some(group) = groups.first() else { return Ok(()) };
    let mut line = serde_json::to_vec(&SavedGroup::of(step, group, saving, false))?;
    line.push(b'\n');
    fs::write(folder.live(), line).with_context(|| format!("cannot write {}", folder.live().display()))
}

/// The files of whole steps in the run `run`, in the order of their steps.
pub fn files(run: &Path) -> Result<Vec<PathBuf>> {
    let folder = run.join("rollouts");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
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
