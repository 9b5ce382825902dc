//! Verified traces: a teacher's completions that a rubric passes, for a student to learn from (the distillation of
//! DeepSeek-R1, arXiv:2501.12948, section 2.4). What becomes of every completion is counted.
//!
//! A problem that is done is a line of a file of progress, so work that was killed goes on where it stopped; the traces
//! themselves are written, whole, when all is done.

pub mod filter;
mod progress;
mod rows;
mod service;
mod teacher;

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result};
use reckon_datasets::{Counted, Example};
use serde::{Deserialize, Serialize};

pub use progress::{Progress, progress_file};
pub use rows::write;
pub use service::Service;
pub use teacher::{Teacher, Usage};

use crate::config::{Keep, TracesConfig, TracesControl};
use crate::eval::{passes, readable};
use crate::judge::{Group, Judge, Rollout};
use crate::prompt::Prompt;
use crate::rollout::FinishReason;

/// A problem: the row as the file has it, and how the teacher is asked it.
#[derive(Debug, Clone)]
pub struct Question {
    /// The row.
    pub example: Example,
    /// What is asked, whose example is the one that is judged by.
    pub prompt: Prompt,
}

/// A completion to learn from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifiedTrace {
    /// The row that was asked.
    pub example: Example,
    /// The whole completion, a prefilled start included.
    pub completion: String,
    /// Where it comes from.
    pub provenance: Provenance,
}

/// Where a trace comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The teacher, by the name that the config gives it.
    pub teacher: String,
    /// The step of the run whose checkpoint it is, if it is one.
    pub step: Option<u64>,
    /// The seed of the work.
    pub seed: u64,
    /// The number of the completion among those of its problem.
    pub sample: usize,
    /// What the rubric made of it; none where it was not judged.
    pub reward: Option<f32>,
    /// What each verifier said, by its name.
    pub verdicts: BTreeMap<String, String>,
    /// Tokens of the completion by the teacher's count; 0 where it does not tell.
    pub tokens: usize,
}

/// Who teaches, as provenance says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The model or the service's name of it.
    pub teacher: String,
    /// The step of the run whose checkpoint it is, if it is one.
    pub step: Option<u64>,
}

/// What became of the completions of a problem.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Fates {
    /// The row.
    pub id: String,
    /// Completions that were asked for.
    pub asked: usize,
    /// Completions that were not kept, by the reason.
    pub dropped: BTreeMap<String, usize>,
    /// Those that were.
    pub kept: Vec<VerifiedTrace>,
    /// The problem's share of what was read and written, in tokens.
    pub tokens: [usize; 2],
}

/// Who answers and who judges.
pub struct Collector<'a> {
    /// What is kept.
    pub config: &'a TracesConfig,
    /// Who answers.
    pub teacher: &'a Teacher,
    /// What it is called.
    pub name: Name,
    /// Who judges.
    pub judge: &'a Judge,
}

impl Collector<'_> {
    /// Asks some questions, and returns what became of the completions of each.
    pub fn ask(&self, questions: Vec<Question>) -> Result<Vec<Fates>> {
        let samples = self.config.samples;
        let (examples, prompts): (Vec<_>, Vec<_>) = questions.into_iter().map(|q| (q.example, q.prompt)).unzip();
        let (prompts, faults) = readable(self.judge, prompts);
        if let Some(first) = faults.first() {
            anyhow::bail!("{} rows cannot be judged: {first}", faults.len());
        }
        let judging = self.judge.begin(prompts, samples, None);
        let usage =
            self.teacher.answer(judging.prompts(), samples, self.config.seed, &|prompt, sample, completion| {
                judging.take(prompt, sample, completion);
            })?;
        let (prompts, judged) = judging.verdicts()?;
        let sizes = vec![samples; prompts.len()];
        let groups = self.judge.groups(prompts, sizes, judged)?;
        let n = groups.len().max(1);
        let shares = |index: usize, all: usize| all * (index + 1) / n - all * index / n;
        let fates = groups.iter().zip(examples).enumerate().map(|(index, (group, example))| Fates {
            tokens: [shares(index, usage.prompt_tokens), shares(index, usage.completion_tokens)],
            ..self.fates(group, &example)
        });
        Ok(fates.collect())
    }

    /// Which completions of a problem are kept, and why the others are not.
    fn fates(&self, group: &Group, example: &Example) -> Fates {
        let id = group.prompt.example.id.clone();
        let mut fates = Fates { id, asked: group.rollouts.len(), ..Fates::default() };
        for sample in self.order(group) {
            let rollout = &group.rollouts[sample];
            let text = [&group.prompt.prefill, rollout.completion.text.as_str()].concat();
            let alike = |kept: &VerifiedTrace| filter::likeness(&kept.completion, &text);
            let closest = fates.kept.iter().map(alike).fold(0.0, f64::max);
            let fault = self.fault(group, rollout, &text).or(match closest {
                1.0 => Some("copies"),
                closest if closest >= self.config.filter.duplicates => Some("near copies"),
                _ if fates.kept.len() >= self.config.most => Some("more than most"),
                _ => None,
            });
            match fault {
                Some(fault) => *fates.dropped.entry(fault.to_owned()).or_default() += 1,
                None => fates.kept.push(self.trace(group, example, sample, text)),
            }
        }
        fates
    }

    /// The numbers of a problem's completions, those to be kept first.
    fn order(&self, group: &Group) -> Vec<usize> {
        let mut order: Vec<usize> = (0..group.rollouts.len()).collect();
        let length = |sample: usize| {
            let completion = &group.rollouts[sample].completion;
            (completion.tokens.len(), completion.text.chars().count())
        };
        let reward = |sample: usize| group.rollouts[sample].reward.unwrap_or(f32::NEG_INFINITY);
        match self.config.keep {
            Keep::All => {}
            Keep::Best => order.sort_by(|&a, &b| reward(b).total_cmp(&reward(a)).then(length(a).cmp(&length(b)))),
            Keep::Shortest => order.sort_by_key(|&sample| length(sample)),
        }
        order
    }

    /// Why a completion is not kept, whatever else was.
    fn fault(&self, group: &Group, rollout: &Rollout, text: &str) -> Option<&'static str> {
        let completion = &rollout.completion;
        if completion.tokens.is_empty() && completion.text.is_empty() {
            return Some("no answer");
        }
        if completion.finish == FinishReason::Length {
            return Some("cut short");
        }
        match passes(self.judge, group, rollout) {
            _ if self.config.control == TracesControl::Unverified => {}
            None => return Some("not judged"),
            Some(false) => return Some("wrong"),
            Some(true) => {}
        }
        filter::fault(text, &self.config.filter)
    }

    fn trace(&self, group: &Group, example: &Example, sample: usize, completion: String) -> VerifiedTrace {
        let rollout = &group.rollouts[sample];
        let names = self.judge.rubric(group.prompt.source).names().into_iter();
        let outcome = |outcome| serde_json::to_value(outcome).ok().and_then(|word| Some(word.as_str()?.to_owned()));
        let verdicts = names.zip(&rollout.score.parts).map(|(name, verdict)| {
            (name.to_string(), outcome(verdict.outcome).unwrap_or_else(|| format!("{:?}", verdict.outcome)))
        });
        let Name { teacher, step } = self.name.clone();
        VerifiedTrace {
            example: example.clone(),
            completion,
            provenance: Provenance {
                teacher,
                step,
                seed: self.config.seed,
                sample,
                reward: rollout.reward,
                verdicts: verdicts.collect(),
                tokens: rollout.completion.tokens.len(),
            },
        }
    }
}

/// What became of all completions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Problems that were asked.
    pub problems: usize,
    /// Of them, those with a trace.
    pub solved: usize,
    /// Completions that were asked for.
    pub asked: usize,
    /// Traces.
    pub kept: usize,
    /// Completions that were not kept, by the reason.
    pub dropped: BTreeMap<String, usize>,
    /// Tokens that were read and written.
    pub tokens: [usize; 2],
}

/// The traces of all problems in the order of the problems, and what became of all completions. Of traces that stand there
/// twice to the letter the second is dropped.
pub fn gather(all: impl IntoIterator<Item = Fates>, config: &TracesConfig) -> (Vec<VerifiedTrace>, Counts) {
    let (mut counts, mut traces, mut seen) = (Counts::default(), Vec::new(), HashSet::new());
    for fates in all {
        counts.problems += 1;
        counts.solved += usize::from(!fates.kept.is_empty());
        counts.asked += fates.asked;
        counts.tokens = [counts.tokens[0] + fates.tokens[0], counts.tokens[1] + fates.tokens[1]];
        for (reason, count) in fates.dropped {
            *counts.dropped.entry(reason).or_default() += count;
        }
        for trace in fates.kept {
            if seen.insert((trace.example.question.clone(), trace.completion.clone())) {
                traces.push(trace);
            } else {
                *counts.dropped.entry("copies".to_owned()).or_default() += 1;
            }
        }
    }
    if config.control == TracesControl::Shuffled {
        let mut completions: Vec<String> = traces.iter().map(|trace| trace.completion.clone()).collect();
        Counted::new(&[config.seed, 0x5447_eace]).shuffle(&mut completions);
        traces.iter_mut().zip(completions).for_each(|(trace, completion)| trace.completion = completion);
    }
    counts.kept = traces.len();
    (traces, counts)
}

impl Counts {
    /// The counts as lines for people.
    pub fn lines(&self) -> Vec<String> {
        let Self { problems, solved, asked, kept, dropped, tokens: [read, written] } = self;
        let mut lines = vec![
            format!("{kept} traces of {solved} problems; {problems} were asked, {asked} completions sampled"),
            format!("{read} tokens read, {written} written"),
        ];
        lines.extend(dropped.iter().map(|(reason, count)| format!("dropped    {count:>7} {reason}")));
        lines
    }
}

/// The step of the run whose checkpoint a model is, if it is one.
pub fn step_of(checkpoint: &std::path::Path) -> Result<Option<u64>> {
    #[derive(Deserialize)]
    struct State {
        progress: At,
    }
    #[derive(Deserialize)]
    struct At {
        step: u64,
    }
    let path = checkpoint.join("trainer.json");
    let read = || -> Result<u64> {
        let state: State = serde_json::from_str(&crate::disk::read_text(&path)?)?;
        Ok(state.progress.step)
    };
    path.exists().then(|| read().with_context(|| path.display().to_string())).transpose()
}
