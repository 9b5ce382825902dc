//! The contract of a verifier: what it is given, what it says, and when it must refuse to say anything.
//! Leaves the combination of several verdicts to [`crate::Rubric`].

use std::borrow::Cow;

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};

/// A rule that judges a completion. Total: any text gets a verdict, in time linear in its length for those built in.
pub trait Verifier: Send + Sync {
    /// What configs, metrics and errors call it.
    fn name(&self) -> &str;

    /// Judges one completion. `Err` only when the verifier itself or the example is broken, as by a reference answer
    /// that cannot be parsed; never because of what the model wrote.
    fn verify(&self, example: &Example, completion: &str) -> Result<Verdict, VerifierError>;

    /// Refuses an example that it could not judge, whatever the completion: that of [`Verifier::verify`] says why. Rows
    /// are left out of an evaluation so. Passes all where it is not known before a completion is there.
    fn check(&self, _example: &Example) -> Result<(), VerifierError> {
        Ok(())
    }

    /// The answer that the dataset gives for `example`, as it would stand in a completion. `None` where this verifier
    /// compares with none. An audit holds the verifier and the data to it.
    fn reference(&self, _example: &Example) -> Option<Reference> {
        None
    }

    /// `draft`, an answer or a completion, with what this verifier wants around it and does not find in it: tags, for
    /// one that reads an answer block. An audit makes well-formed completions of answers so.
    fn lay_out(&self, draft: &str) -> String {
        draft.to_owned()
    }

    /// The reward of a tool for which this verifier passes a completion; `None` where it reads none. An audit lets a tool
    /// give it, because no answer of a dataset's own has called one.
    fn wanted_reward(&self) -> Option<f64> {
        None
    }

    /// How much of a group it must see at once.
    fn scope(&self) -> Scope {
        Scope::Completion
    }

    /// Whether [`Verifier::verify_batch`] shares a batch out itself, over cores or workers, so that a caller who shares
    /// it out besides would only crowd them.
    fn spreads(&self) -> bool {
        false
    }

    /// Judges several completions: one verdict each, in order. What a batch holds is up to the caller, unless
    /// [`Verifier::scope`] asks for whole groups: then it is one group.
    ///
    /// To be overridden by verifiers that judge by comparison, that need more of a [`Submission`] than its text, or
    /// that do better on many at once.
    fn verify_batch(&self, batch: &[Submission]) -> Result<Vec<Verdict>, VerifierError> {
        batch.iter().map(|submission| self.verify(submission.example, submission.completion)).collect()
    }
}

/// An answer that must pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The answer, without tags or thoughts.
    pub answer: String,
    /// What it says about other answers.
    pub kind: ReferenceKind,
}

/// What a reference answer says about others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferenceKind {
    /// It is right by its value: the answers of other rows are wrong.
    Value,
    /// It is one of many that have the form asked for: the answers of other rows may be right too.
    Form,
    /// It is a program, right by what it does. A huge expression is a program that runs until its time is up.
    Program,
}

impl Reference {
    /// The answer, unless it is blank.
    pub fn new(answer: &str, kind: ReferenceKind) -> Option<Self> {
        (!answer.trim().is_empty()).then(|| Self { answer: answer.trim().to_owned(), kind })
    }

    /// The answer as one that is right by its value, unless it is blank.
    pub fn value(answer: &str) -> Option<Self> {
        Self::new(answer, ReferenceKind::Value)
    }
}

/// What a verifier must see at once to judge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One completion: the verdict does not depend on the others of its batch.
    #[default]
    Completion,
    /// All completions of a prompt, as a rule that compares their lengths does.
    Group,
}

/// A completion handed in for judgement.
#[derive(Debug, Clone, Copy)]
pub struct Submission<'a> {
    /// What was asked.
    pub example: &'a Example,
    /// What is judged: the start that the prompt prefilled, then the sampled text without the end token.
    pub completion: &'a str,
    /// Ids of the sampled tokens, the end token included; empty where only the text is known.
    pub tokens: &'a [u32],
    /// Whether the limit of tokens cut it.
    pub truncated: bool,
    /// The rewards that tools gave for its calls, in the order of the calls; those that gave none are left out.
    pub rewards: &'a [f64],
}

impl<'a> Submission<'a> {
    /// A whole completion of which only the text is known, and that no tool rewarded.
    pub fn new(example: &'a Example, completion: &'a str) -> Self {
        Self { example, completion, tokens: &[], truncated: false, rewards: &[] }
    }
}

/// What a verifier says of one completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// 0 for a wrong or malformed completion, 1 for a right one; finite. Verifiers of one's own may go beyond, as for
    /// partial credit or a penalty. Means nothing where [`Verdict::judged`] is `None`.
    pub reward: f32,
    /// How it came about; counted per step.
    pub outcome: Outcome,
    /// What was judged, where something could be read from the completion.
    pub parsed: Option<String>,
    /// Why, in a few lower-case words.
    pub reason: Cow<'static, str>,
}

impl Verdict {
    /// Reward 1.
    pub fn pass(parsed: impl Into<String>, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reward: 1.0, outcome: Outcome::Pass, parsed: Some(parsed.into()), reason: reason.into() }
    }

    /// Reward 0 for something that was read and is wrong.
    pub fn fail(parsed: impl Into<String>, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reward: 0.0, outcome: Outcome::Fail, parsed: Some(parsed.into()), reason: reason.into() }
    }

    /// Reward 0 where nothing was read, for the reason that `outcome` names.
    pub fn zero(outcome: Outcome, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reward: 0.0, outcome, parsed: None, reason: reason.into() }
    }

    /// The reward, unless the completion was not judged.
    pub fn judged(&self) -> Option<f32> {
        self.outcome.is_judged().then_some(self.reward)
    }

    /// Whether the outcome is [`Outcome::Pass`].
    pub fn passed(&self) -> bool {
        self.outcome == Outcome::Pass
    }
}

/// How a verdict came about. All but `Skipped` and `Error` are the model's doing and keep their reward: an outcome that
/// is left out instead would let the policy dodge a penalty. Machinery that fails is no outcome but an error,
/// [`VerifierError::Infra`], unless the config says to go on without the completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Right.
    Pass,
    /// Understood, and wrong.
    Fail,
    /// No answer could be read.
    Unparsed,
    /// The completion was cut, or is longer than a verifier reads.
    Truncated,
    /// The completion made the verifier run out of time.
    Timeout,
    /// The completion made the verifier's worker crash.
    Crash,
    /// The verifier does not judge the completion, and says so: it is left out of the total.
    Skipped,
    /// The verifier failed over the completion, and its `on_error` says to go on: there is no total.
    Error,
}

impl Outcome {
    /// Every outcome, with its name in metrics and files.
    pub const COUNTED: [(Self, &'static str); 8] = [
        (Self::Pass, "pass"),
        (Self::Fail, "fail"),
        (Self::Unparsed, "unparsed"),
        (Self::Truncated, "truncated"),
        (Self::Timeout, "timeout"),
        (Self::Crash, "crash"),
        (Self::Skipped, "skipped"),
        (Self::Error, "error"),
    ];

    /// Whether the completion was judged, so that the reward counts.
    pub fn is_judged(self) -> bool {
        !matches!(self, Self::Skipped | Self::Error)
    }
}

/// What passing only some of several checks earns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credit {
    /// Nothing: all must pass.
    #[default]
    All,
    /// The share of them that pass. Only all of them are a pass.
    Share,
}

/// A verifier or an example is broken; the completion is not to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifierError {
    /// The example cannot be judged by this verifier.
    #[error("verifier `{verifier}` cannot judge example `{id}`: {problem}")]
    Example {
        /// Name of the verifier.
        verifier: String,
        /// Name of the example.
        id: String,
        /// The offending value and the way out.
        problem: String,
    },
    /// The configuration makes no sense.
    #[error("verifier `{verifier}` is misconfigured: {problem}")]
    Config {
        /// Name of the verifier, or `rubric`.
        verifier: String,
        /// The offending value and the way out.
        problem: String,
    },
    /// The verifier's machinery failed.
    #[error("verifier `{verifier}` failed on example `{id}`: {problem}; no reward was given, so retry or stop the run")]
    Infra {
        /// Name of the verifier.
        verifier: String,
        /// Name of the example.
        id: String,
        /// What happened.
        problem: String,
    },
}

impl VerifierError {
    /// An example that `verifier` cannot judge.
    pub fn example(verifier: &str, example: &Example, problem: impl Into<String>) -> Self {
        Self::Example { verifier: verifier.into(), id: example.id.clone(), problem: problem.into() }
    }

    /// A configuration that makes no sense.
    pub fn config(verifier: &str, problem: impl Into<String>) -> Self {
        Self::Config { verifier: verifier.into(), problem: problem.into() }
    }

    /// Machinery that failed while `verifier` judged `example`.
    pub fn infra(verifier: &str, example: &Example, problem: impl Into<String>) -> Self {
        Self::Infra { verifier: verifier.into(), id: example.id.clone(), problem: problem.into() }
    }
}
