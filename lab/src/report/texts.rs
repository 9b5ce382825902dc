//! The texts of a run for a page: rollouts of steps, and held-out problems at several steps, as many as a budget of bytes
//! takes.

use anyhow::Result;
use serde::Serialize;

use super::packing::{Short, evenly, lengths, nats};
use crate::evals::Eval;
use crate::rollups;
use crate::run::Run;
use crate::transcripts::{self, Group, Rollout};

/// Groups of a step that a page has: the first, whose tokens are described.
const GROUPS: usize = 4;

/// The rollouts of a run.
#[derive(Debug, Default)]
pub(super) struct Transcripts {
    /// `[{"step": 1, ...}, ...]`
    pub(super) json: String,
    /// The steps in it.
    pub(super) steps: Vec<u64>,
    /// How many steps the run has kept.
    pub(super) kept: usize,
}

#[derive(Serialize)]
struct StepTexts<'a> {
    step: u64,
    /// Groups that the run has kept of the step.
    of: usize,
    groups: Vec<GroupTexts<'a>>,
}

#[derive(Serialize)]
struct GroupTexts<'a> {
    id: &'a str,
    q: &'a str,
    answer: String,
    r: Vec<Text<'a>>,
}

/// A completion.
#[derive(Serialize)]
struct Text<'a> {
    t: &'a str,
    /// Its verdict's number.
    v: usize,
    r: Option<Short>,
    /// Tokens.
    n: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    a: Option<Short>,
    /// What the verifiers said, where they said something.
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<Tokens>,
}

/// What is known of its tokens.
#[derive(Serialize)]
struct Tokens {
    /// UTF-16 units before the first token.
    s: usize,
    /// UTF-16 units of each.
    p: String,
    /// Minus their log-probabilities, and their entropies.
    l: String,
    e: String,
}

/// Reads a run's rollouts, puts what follows from them among its curves, and keeps as many steps as `budget` takes.
pub(super) fn transcripts(run: &mut Run, budget: usize) -> Result<Transcripts> {
    let files = transcripts::files(&run.path);
    let (mut steps, mut texts) = (Vec::new(), Vec::new());
    for (step, file) in &files {
        let groups = transcripts::read(file, &mut run.remarks)?;
        rollups::put(run, *step, rollups::of(&groups));
        if !groups.is_empty() {
            steps.push(*step);
            texts.push(step_json(*step, &groups, budget)?);
        }
    }
    let chosen = evenly(&texts.iter().map(String::len).collect::<Vec<_>>(), budget);
    let json: Vec<&str> = chosen.iter().map(|&at| texts[at].as_str()).collect();
    Ok(Transcripts {
        json: format!("[{}]", json.join(",")),
        steps: chosen.iter().map(|&at| steps[at]).collect(),
        kept: steps.len(),
    })
}

/// A step's groups, fewer of them where even half a dozen such steps would not fit.
fn step_json(step: u64, groups: &[Group], budget: usize) -> Result<String> {
    let mut json = String::new();
    for count in (1..=GROUPS).rev() {
        let shown = StepTexts { step, of: groups.len(), groups: groups.iter().take(count).map(group_texts).collect() };
        json = serde_json::to_string(&shown)?;
        if json.len() * 6 <= budget {
            break;
        }
    }
    Ok(json)
}

fn group_texts(group: &Group) -> GroupTexts<'_> {
    let answer = match &group.example.answer {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    };
    let r = group.rollouts.iter().map(text).collect();
    GroupTexts { id: &group.example.id, q: &group.example.question, answer, r }
}

fn text(rollout: &Rollout) -> Text<'_> {
    let reasons = rollout.score.parts.iter().filter(|part| !part.reason.is_empty());
    Text {
        t: &rollout.completion,
        v: rollout.verdict() as usize,
        r: rollout.reward.map(Short),
        n: rollout.tokens.len(),
        a: rollout.advantage.map(Short),
        why: reasons.map(|part| format!("{}: {}", part.outcome, part.reason)).collect::<Vec<_>>().join("; "),
        by: tokens(rollout),
    }
}

/// `None` where nothing is known, or the pieces are not of this text.
fn tokens(rollout: &Rollout) -> Option<Tokens> {
    let (by, text) = (&rollout.by_token, rollout.completion.as_str());
    if by.pieces.is_empty() || by.pieces.len() != by.logprobs.len() {
        return None;
    }
    let units = |text: &str| text.encode_utf16().count();
    let mut at = by.start;
    let mut piece = |length: &usize| {
        // A stop token's text is not in the completion.
        let (start, end) = (at.min(text.len()), (at + length).min(text.len()));
        at += length;
        text.get(start..end).map(units)
    };
    let pieces: Option<Vec<usize>> = by.pieces.iter().map(&mut piece).collect();
    Some(Tokens {
        s: units(text.get(..by.start)?),
        p: lengths(pieces?)?,
        l: nats(by.logprobs.iter().map(|logprob| -logprob)),
        e: nats(by.entropies.iter().copied()),
    })
}

/// The held-out problems of a run.
#[derive(Debug, Default)]
pub(super) struct Problems {
    /// `{"steps": [...], "verdicts": [...], "texts": {...}}`
    pub(super) json: String,
}

#[derive(Serialize)]
struct ProblemTexts<'a> {
    steps: Vec<u64>,
    samples: usize,
    /// A character for each completion: `1` right, `0` not, `-` not judged.
    verdicts: Vec<String>,
    /// Completions of some of the steps, of the first problems.
    texts: Vec<(u64, Vec<&'a str>)>,
}

/// The verdicts of all evaluations, and the completions of as many as `budget` takes; of the first problems only where
/// even two evaluations are too long.
pub(super) fn problems(evals: &[Eval], budget: usize) -> Result<Problems> {
    let Some(last) = evals.last() else { return Ok(Problems { json: "null".into() }) };
    let size = |eval: &Eval| eval.judged.iter().map(|judged| judged.completion.len() + 8).sum::<usize>();
    let sizes: Vec<usize> = evals.iter().map(size).collect();
    let mut chosen = evenly(&sizes, budget);
    let mut completions = usize::MAX;
    if chosen.len() < evals.len().min(2) {
        chosen = evenly(&vec![1; evals.len()], 2);
        let total: usize = chosen.iter().map(|&at| sizes[at]).sum();
        completions = last.judged.len() * budget / total.max(1);
    }
    let verdict = |passed: Option<bool>| passed.map_or('-', |passed| if passed { '1' } else { '0' });
    let texts = chosen.iter().map(|&at| (evals[at].step, completions_of(&evals[at], completions))).collect();
    let shown = ProblemTexts {
        steps: evals.iter().map(|eval| eval.step).collect(),
        samples: last.samples(),
        verdicts: evals.iter().map(|eval| eval.judged.iter().map(|judged| verdict(judged.passed)).collect()).collect(),
        texts,
    };
    Ok(Problems { json: serde_json::to_string(&shown)? })
}

fn completions_of(eval: &Eval, count: usize) -> Vec<&str> {
    eval.judged.iter().map(|judged| judged.completion.as_str()).take(count).collect()
}
