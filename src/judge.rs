//! Completions to verdicts: the verifiers judge each completion while others are still being sampled. Knows nothing of
//! where completions come from.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use reckon_datasets::Example;
use reckon_rewards::{Rubric, Scope, Score, Submission};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use crate::prompt::Prompt;
use crate::rollout::{Completion, FinishReason};

/// Batches of completions that are judged at a time: verifiers wait for programs and services more than they compute.
const JUDGED_AT_A_TIME: usize = 4;
/// Most completions that are taken off the channel at a time.
const BATCH: usize = 64;

/// A completion with its verdicts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rollout {
    /// What was sampled.
    pub completion: Completion,
    /// What the rubric says.
    pub score: Score,
    /// What the policy is trained on: the rubric's total, unless a control or a rule on length replaces it. `None` where
    /// the completion was not judged: nothing is learned from it.
    pub reward: Option<f32>,
    /// What the completion's length adds to it where it is learned from; 0 or less.
    pub penalty: f32,
    /// What the step learned from it; `None` where its group was left out.
    pub learned: Option<Learned>,
}

/// What a step learned from a completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// The mean of its tokens' advantages.
    pub advantage: f32,
    /// Entropy in nats of the distribution that each token was drawn from, by the policy that was about to be updated;
    /// empty where the completion was masked.
    pub entropies: Vec<f32>,
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
    /// The rewards in order; `None` where a rollout was not judged.
    pub fn rewards(&self) -> Vec<Option<f32>> {
        self.rollouts.iter().map(|r| r.reward).collect()
    }

    /// The same with the penalties on length: what is learned from.
    pub fn penalised_rewards(&self) -> Vec<Option<f32>> {
        self.rollouts.iter().map(|r| Some(r.reward? + r.penalty)).collect()
    }
}

/// The verifiers of a run, on threads of their own. A broken verifier is an error, never a reward.
pub struct Judge {
    runtime: Runtime,
    /// One for each source of the run's data.
    rubrics: Vec<Arc<Rubric>>,
}

impl Judge {
    /// A judge with a rubric for each source of the data in order.
    pub fn new(rubrics: Vec<Rubric>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(JUDGED_AT_A_TIME)
            .build()
            .context("cannot start the verifiers' threads")?;
        Ok(Self { runtime, rubrics: rubrics.into_iter().map(Arc::new).collect() })
    }

    /// Names of the parts of each source's rubric.
    pub fn names(&self) -> Vec<Vec<String>> {
        self.rubrics.iter().map(|rubric| rubric.names().iter().map(ToString::to_string).collect()).collect()
    }

    /// The rubrics of all sources in order.
    pub fn rubrics(&self) -> &[Arc<Rubric>] {
        &self.rubrics
    }

    /// The rubric of a source.
    pub fn rubric(&self, source: usize) -> &Rubric {
        &self.rubrics[source]
    }

    /// Begins to judge `group_size` completions of each of `prompts`, or as many as `watch` says, in whatever order they
    /// come.
    pub fn begin(&self, prompts: Vec<Prompt>, group_size: usize, watch: Option<Arc<dyn Watch>>) -> Judging<'_> {
        let (completions, receiver) = unbounded_channel();
        let asked = prompts.iter().map(|p| Asked {
            rubric: self.rubrics[p.source].clone(),
            source: p.source,
            example: p.example.clone(),
            prefill: p.prefill.clone(),
        });
        let watched = Watched { asked: asked.collect(), watch: watch.clone() };
        let verdicts = self.runtime.spawn(judge_all(Arc::new(watched), group_size, receiver));
        Judging { judge: self, prompts, completions, verdicts }
    }

    /// Refuses to go on where a verifier failed over too many of the completions that were judged together.
    fn check_errors(&self, groups: &[Group]) -> Result<()> {
        for (source, rubric) in self.rubrics.iter().enumerate() {
            let of_source = groups.iter().filter(|group| group.prompt.source == source);
            let judged = of_source.flat_map(|group| group.rollouts.iter().map(|r| (&*group.prompt.example, &r.score)));
            rubric.check_errors(&judged.collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

/// Who has to know of verdicts before the last one.
pub trait Watch: Send + Sync {
    /// Completion `sample` of the prompt at place `prompt` has its verdict.
    fn judged(&self, prompt: usize, sample: usize, rollout: &Rollout);

    /// A verifier is broken: some verdicts will never come.
    fn failed(&self);

    /// Completions of each prompt, once the last one has begun.
    fn sizes(&self) -> Vec<usize>;
}

/// A judgement under way.
pub struct Judging<'a> {
    judge: &'a Judge,
    prompts: Vec<Prompt>,
    completions: UnboundedSender<Finished>,
    verdicts: JoinHandle<Result<Vec<Judged>>>,
}

impl Judging<'_> {
    /// What is being judged.
    pub fn prompts(&self) -> &[Prompt] {
        &self.prompts
    }

    /// Hands over a completion, by the place of its prompt and its number among those of the prompt.
    pub fn take(&self, prompt: usize, sample: usize, completion: Completion) {
        // The receiver leaves early only after an error, which `groups` returns.
        let _ = self.completions.send((prompt, sample, completion));
    }

    /// Waits for the last verdict, and returns the prompts beside what was judged.
    ///
    /// # Errors
    /// A verifier's.
    pub fn verdicts(self) -> Result<(Vec<Prompt>, Vec<Judged>)> {
        drop(self.completions);
        let judged = self.judge.runtime.block_on(self.verdicts).context("a verifier panicked")??;
        Ok((self.prompts, judged))
    }
}

impl Judge {
    /// What was judged as groups of these sizes, one for each prompt; those of 0 are none.
    ///
    /// # Errors
    /// One that names a completion without a verdict, or that a verifier failed over too many.
    pub fn groups(&self, prompts: Vec<Prompt>, sizes: Vec<usize>, judged: Vec<Judged>) -> Result<Vec<Group>> {
        let mut places: Vec<Vec<Option<Rollout>>> = sizes.into_iter().map(|size| vec![None; size]).collect();
        for (prompt, sample, rollout) in judged {
            places[prompt][sample] = Some(rollout);
        }
        let asked = prompts.into_iter().zip(places).filter(|(_, places)| !places.is_empty());
        let groups = asked.map(|(prompt, places)| {
            let missing = |sample| format!("completion {sample} of example {} has no verdict", prompt.example.id);
            let rollouts = places.into_iter().enumerate();
            let rollouts = rollouts.map(|(sample, rollout)| rollout.with_context(|| missing(sample)));
            Ok(Group { rollouts: rollouts.collect::<Result<_>>()?, prompt })
        });
        let groups: Vec<Group> = groups.collect::<Result<_>>()?;
        self.check_errors(&groups)?;
        Ok(groups)
    }
}

/// A completion by the place of its prompt and its number.
type Finished = (usize, usize, Completion);
/// The same, judged.
pub type Judged = (usize, usize, Rollout);

/// What a verifier needs of a prompt.
struct Asked {
    rubric: Arc<Rubric>,
    source: usize,
    example: Arc<Example>,
    prefill: Arc<str>,
}

/// What is judged, and who watches.
struct Watched {
    asked: Vec<Asked>,
    watch: Option<Arc<dyn Watch>>,
}

impl Watched {
    /// Judges a batch and tells who watches, also where a verifier fails or panics: nobody waits for such a verdict.
    fn judge(&self, batch: Vec<Finished>) -> Result<Vec<Judged>> {
        let alarm = Alarm(self.watch.as_deref());
        let judged = judge_batch(&self.asked, batch)?;
        let watch = alarm.off();
        for (prompt, sample, rollout) in &judged {
            watch.iter().for_each(|watch| watch.judged(*prompt, *sample, rollout));
        }
        Ok(judged)
    }
}

/// Says when dropped that a verifier has failed.
struct Alarm<'a>(Option<&'a dyn Watch>);

impl<'a> Alarm<'a> {
    fn off(mut self) -> Option<&'a dyn Watch> {
        self.0.take()
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|watch| watch.failed());
    }
}

/// Judges completions as they arrive, or whole groups where a rubric asks for them.
async fn judge_all(
    watched: Arc<Watched>,
    group_size: usize,
    mut receiver: UnboundedReceiver<Finished>,
) -> Result<Vec<Judged>> {
    let asked = &watched.asked;
    let mut batches = tokio::task::JoinSet::new();
    let mut judge = |batch: Vec<Finished>| {
        let watched = watched.clone();
        batches.spawn_blocking(move || watched.judge(batch));
    };
    let mut arrived = Vec::new();
    let mut groups = vec![Vec::new(); asked.len()];
    while receiver.recv_many(&mut arrived, BATCH).await > 0 {
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
    let mut judged = Vec::new();
    while let Some(batch) = batches.join_next().await {
        judged.extend(batch.context("a verifier panicked")??);
    }
    Ok(judged)
}

/// Judges completions whose prompts have the same rubric.
fn judge_batch(asked: &[Asked], batch: Vec<Finished>) -> Result<Vec<Judged>> {
    let Some(rubric) = batch.first().map(|(prompt, ..)| &asked[*prompt].rubric) else { return Ok(Vec::new()) };
    let texts: Vec<_> =
        batch.iter().map(|(prompt, _, c)| [&asked[*prompt].prefill, c.text.as_str()].concat()).collect();
    let sampled: Vec<_> = batch.iter().map(|(_, _, completion)| completion.sampled()).collect();
    let submissions: Vec<_> = batch
        .iter()
        .zip(texts.iter().zip(&sampled))
        .map(|((prompt, _, completion), (text, tokens))| Submission {
            example: &asked[*prompt].example,
            completion: text,
            tokens,
            truncated: completion.finish == FinishReason::Length,
            rewards: &completion.tools.rewards,
        })
        .collect();
    let scores = rubric.score_batch(&submissions)?;
    let judged = batch.into_iter().zip(scores).map(|((prompt, sample, completion), score)| {
        let reward = score.total;
        (prompt, sample, Rollout { completion, score, reward, penalty: 0.0, learned: None })
    });
    Ok(judged.collect())
}
