//! What goes over the wire: a call is one JSON object, its answer is one JSON object. A call asks for the verdict on
//! one completion, or on all completions of a group. See the protocol in `rewards/README.md`.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::OnError;
use crate::{Outcome, Scope, Submission, Verdict};

/// Longest reason or parsed text that is kept, in bytes.
const MAX_TEXT: usize = 1024;

/// A request for verdicts.
pub(crate) struct Call {
    /// Unique in the life of a pool: an answer to another call cannot be taken for this one's.
    pub(crate) id: u64,
    /// The request, one line of JSON.
    pub(crate) line: String,
    /// Completions in it.
    pub(crate) count: usize,
    scope: Scope,
    on_error: OnError,
}

#[derive(Serialize)]
struct One<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    example: &'a str,
    question: &'a str,
    answer: &'a str,
    #[serde(skip_serializing_if = "<[Value]>::is_empty")]
    messages: &'a [Value],
    info: &'a Map<String, Value>,
    completion: &'a str,
    tokens: usize,
    truncated: bool,
    rewards: &'a [f64],
    #[serde(skip_serializing_if = "<[u32]>::is_empty")]
    token_ids: &'a [u32],
}

#[derive(Serialize)]
struct Group<'a> {
    id: u64,
    batch: Vec<One<'a>>,
}

impl<'a> One<'a> {
    fn new(id: Option<u64>, of: &Submission<'a>, token_ids: bool) -> Self {
        let Submission { example, completion, tokens, truncated, rewards } = *of;
        Self {
            id,
            example: &example.id,
            question: &example.question,
            answer: &example.answer,
            messages: &example.messages,
            info: &example.info,
            completion,
            tokens: tokens.len(),
            truncated,
            rewards,
            token_ids: if token_ids { tokens } else { &[] },
        }
    }
}

impl Call {
    /// The call for a batch: one completion, or a group. `token_ids` says whether the ids of the tokens are sent.
    pub(crate) fn new(id: u64, scope: Scope, batch: &[Submission], token_ids: bool, on_error: OnError) -> Self {
        let line = match (scope, batch) {
            (Scope::Completion, [one]) => serde_json::to_string(&One::new(Some(id), one, token_ids)),
            _ => {
                let batch = batch.iter().map(|one| One::new(None, one, token_ids)).collect();
                serde_json::to_string(&Group { id, batch })
            }
        };
        let line = line.expect("texts, numbers and maps with text keys always have a JSON form");
        Self { id, line, count: batch.len(), scope, on_error }
    }

    /// The verdicts in the answer to this call, or what is wrong with it, unless that is to be skipped.
    pub(crate) fn verdicts(&self, answer: Answer) -> Result<Vec<Verdict>, String> {
        self.read(answer).or_else(|problem| match self.on_error {
            OnError::Stop => Err(problem),
            OnError::Skip => Ok(vec![Verdict::zero(Outcome::Error, problem); self.count]),
        })
    }

    fn read(&self, answer: Answer) -> Result<Vec<Verdict>, String> {
        if let Some(error) = answer.error {
            return Err(clip(error));
        }
        let verdicts = match (self.scope, answer.verdicts) {
            (Scope::Completion, None) => vec![answer.judged],
            (Scope::Group, Some(verdicts)) if verdicts.len() == self.count => verdicts,
            (Scope::Group, Some(verdicts)) => {
                return Err(format!("{} verdicts for a group of {}", verdicts.len(), self.count));
            }
            (Scope::Completion, Some(_)) => return Err("`verdicts` in answer to a call of one completion".into()),
            (Scope::Group, None) => return Err("no `verdicts` in answer to a call of a group".into()),
        };
        verdicts.into_iter().map(Judged::verdict).collect()
    }
}

/// What a worker says of a call. Keys that are not listed are passed over.
#[derive(Default, Deserialize)]
pub(crate) struct Answer {
    pub(crate) id: Option<u64>,
    #[serde(default)]
    pub(crate) ready: bool,
    pub(crate) error: Option<String>,
    verdicts: Option<Vec<Judged>>,
    #[serde(flatten)]
    judged: Judged,
}

impl Answer {
    /// An answer that says why there is no verdict.
    pub(crate) fn error(problem: String) -> Self {
        Self { error: Some(problem), ..Self::default() }
    }

    pub(crate) fn parse(line: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(line)
            .map_err(|error| format!("junk: {} ({error})", clip(String::from_utf8_lossy(line).into_owned())))
    }
}

#[derive(Default, Deserialize)]
struct Judged {
    /// `None` where it is missing, `Some(None)` for null: not judged.
    #[serde(default, deserialize_with = "present")]
    reward: Option<Option<Value>>,
    outcome: Option<Told>,
    reason: Option<String>,
    parsed: Option<String>,
}

/// Outcomes that do not follow from the reward.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    Unparsed,
    Skipped,
    Error,
}

/// What stands at a key, null too.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<Value>>, D::Error> {
    Option::deserialize(value).map(Some)
}

impl Judged {
    fn verdict(self) -> Result<Verdict, String> {
        let outcome = match (self.outcome, &self.reward) {
            (Some(Told::Skipped), _) | (None, Some(None)) => Outcome::Skipped,
            (Some(Told::Error), _) => Outcome::Error,
            (Some(Told::Unparsed), _) => Outcome::Unparsed,
            (None, _) => Outcome::Fail,
        };
        let reward = match self.reward {
            _ if !outcome.is_judged() => 0.0,
            Some(Some(Value::Bool(passed))) => f32::from(passed),
            Some(Some(Value::Number(reward))) => reward.as_f64().unwrap_or(f64::NAN) as f32,
            Some(Some(other)) => return Err(clip(format!("reward {other} is neither true, false, null nor a number"))),
            _ => return Err("an answer without a `reward`: true, false, a number, or null if not judged".into()),
        };
        if !reward.is_finite() {
            return Err(format!("reward {reward} is not a finite number"));
        }
        let outcome = if outcome == Outcome::Fail && reward >= 1.0 { Outcome::Pass } else { outcome };
        let reason = self.reason.map_or("".into(), |reason| clip(reason).into());
        Ok(Verdict { reward, outcome, parsed: self.parsed.map(clip), reason })
    }
}

/// At most [`MAX_TEXT`] bytes of a text.
fn clip(mut text: String) -> String {
    if let Some(end) = (0..=MAX_TEXT.min(text.len())).rev().find(|&end| text.is_char_boundary(end)) {
        text.truncate(end);
    }
    text
}
