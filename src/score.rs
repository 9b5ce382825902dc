//! Completions to groups of rollouts: the verifiers judge each completion while others are still being sampled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use reckon_datasets::{Counted, Example};
use reckon_rewards::{Rubric, Scope, Score, Submission};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::config::Control;
use crate::rollout::{Completion, Engine, FinishReason, Prompt, SampleKey, Sampling};

/// A completion with its verdicts.
#[derive(Debug, Clone)]
pub struct Rollout {
    /// What was sampled.
    pub completion: Completion,
    /// What the rubric says.
    pub score: Score,
    /// What the policy is trained on: the rubric's total, unless a control or a rule on length replaces it.
    pub reward: f32,
}

/// All rollouts of one prompt.
#[derive(Debug, Clone)]
pub struct Group {
    /// What was asked.
    pub prompt: Prompt,
    /// In the order of their sample numbers.
    pub rollouts: Vec<Rollout>,
}

impl Group {
    /// The rewards in order.
    pub fn rewards(&self) -> Vec<f32> {
        self.rollouts.iter().map(|r| r.reward).collect()
    }
}

/// Seconds of the two halves of a rollout. They overlap: verifying runs beside sampling.
#[derive(Debug, Clone, Copy, Default)]
pub struct RolloutTimes {
    /// From the first prefill to the last token.
    pub sample_s: f64,
    /// From the last token to the last verdict: what verifying adds.
    pub verify_s: f64,
}

/// Samples and judges. Completions go through a channel to verifiers on tokio's blocking pool as they finish.
pub struct Scorer {
    runtime: tokio::runtime::Runtime,
    /// One for each source of the run's data.
    rubrics: Vec<Arc<Rubric>>,
}

impl Scorer {
    /// A scorer with its own pool of verifying threads, and a rubric for each source of the data in order.
    pub fn new(rubrics: Vec<Rubric>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(4)
            .build()
            .context("cannot start the verifiers' threads")?;
        Ok(Self { runtime, rubrics: rubrics.into_iter().map(Arc::new).collect() })
    }

    /// Names of the parts of each source's rubric.
    pub fn names(&self) -> Vec<Vec<String>> {
        self.rubrics.iter().map(|rubric| rubric.names().iter().map(ToString::to_string).collect()).collect()
    }

    /// The rubric of a source.
    pub fn rubric(&self, source: usize) -> &Rubric {
        &self.rubrics[source]
    }

    /// `group_size` judged completions of every prompt. A broken verifier is an error, never a reward.
    pub fn rollouts(
        &self,
        engine: Engine,
        prompts: Vec<Prompt>,
        group_size: usize,
        sampling: &Sampling,
        key: SampleKey,
    ) -> Result<(Vec<Group>, RolloutTimes)> {
        let start = Instant::now();
        let (sender, receiver) = unbounded_channel();
        let asked = prompts.iter().map(|p| Asked {
            rubric: self.rubrics[p.source].clone(),
            source: p.source,
            example: p.example.clone(),
            prefill: p.prefill.clone(),
        });
        let verifying = self.runtime.spawn(verify_all(asked.collect(), group_size, receiver));
        engine.generate(&prompts, group_size, sampling, key, |prompt, sample, completion| {
            // The receiver leaves early only after an error, which `verifying` returns below.
            let _ = sender.send((prompt, sample, completion));
        })?;
        drop(sender);
        let sampled = Instant::now();
        let judged = self.runtime.block_on(verifying).context("a verifier panicked")??;
        let times =
            RolloutTimes { sample_s: (sampled - start).as_secs_f64(), verify_s: sampled.elapsed().as_secs_f64() };
        let mut judged = judged.into_values();
        let groups = prompts
            .into_iter()
            .map(|prompt| Group { prompt, rollouts: judged.by_ref().take(group_size).collect() })
            .collect();
        Ok((groups, times))
    }
}

type Finished = (usize, usize, Completion);

/// What a verifier needs of a prompt.
struct Asked {
    rubric: Arc<Rubric>,
    source: usize,
    example: Arc<Example>,
    prefill: Arc<str>,
}

/// Judges completions as they arrive, or whole groups where a rubric asks for them, and returns them by prompt and
/// sample.
async fn verify_all(
    asked: Vec<Asked>,
    group_size: usize,
    mut receiver: UnboundedReceiver<Finished>,
) -> Result<BTreeMap<(usize, usize), Rollout>> {
    let asked = Arc::new(asked);
    let mut batches = tokio::task::JoinSet::new();
    let mut judge = |batch: Vec<Finished>| {
        let asked = asked.clone();
        batches.spawn_blocking(move || verify_batch(&asked, batch));
    };
    let mut arrived = Vec::new();
    let mut groups = vec![Vec::new(); asked.len()];
    while receiver.recv_many(&mut arrived, 64).await > 0 {
        let (alone, grouped): (Vec<_>, Vec<_>) =
            arrived.drain(..).partition(|(prompt, ..)| asked[*prompt].rubric.scope() == Scope::Completion);
        // A batch is judged by one rubric.
        let mut by_source: BTreeMap<usize, Vec<Finished>> = BTreeMap::new();
        alone.into_iter().for_each(|finished| by_source.entry(asked[finished.0].source).or_default().push(finished));
        by_source.into_values().for_each(&mut judge);
        for finished in grouped {
            let group = &mut groups[finished.0];
            group.push(finished);
            if group.len() == group_size {
                group.sort_by_key(|(_, sample, _)| *sample);
                judge(std::mem::take(group));
            }
        }
    }
    let mut judged = BTreeMap::new();
    while let Some(batch) = batches.join_next().await {
        judged.extend(batch.context("a verifier panicked")??);
    }
    Ok(judged)
}

/// Judges completions whose prompts have the same rubric.
fn verify_batch(asked: &[Asked], batch: Vec<Finished>) -> Result<Vec<((usize, usize), Rollout)>> {
    let Some(rubric) = batch.first().map(|(prompt, ..)| &asked[*prompt].rubric) else { return Ok(Vec::new()) };
    let texts: Vec<_> =
        batch.iter().map(|(prompt, _, c)| [&asked[*prompt].prefill, c.text.as_str()].concat()).collect();
    let submissions: Vec<_> = batch
        .iter()
        .zip(&texts)
        .map(|((prompt, _, completion), text)| Submission {
            example: &asked[*prompt].example,
            completion: text,
            tokens: &completion.tokens,
            truncated: completion.finish == FinishReason::Length,
        })
        .collect();
    let scores = rubric.score_batch(&submissions)?;
    let judged = batch.into_iter().zip(scores).map(|((prompt, sample, completion), score)| {
        let reward = score.total;
        ((prompt, sample), Rollout { completion, score, reward })
    });
    Ok(judged.collect())
}

/// Replaces rewards where the run is a control.
pub fn apply_control(groups: &mut [Group], control: Control, key: SampleKey) {
    if control == Control::None {
        return;
    }
    for group in groups {
        for (sample, rollout) in group.rollouts.iter_mut().enumerate() {
            let coin = Counted::new(&[key.seed, key.step, group.prompt.index, sample as u64, 0xc014]).next_u64() & 1;
            rollout.reward = coin as f32;
        }
    }
}
