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
}

/// What a verifier says of one completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// 0 for a wrong or malformed completion, 1 for a right one; finite, and between the two for partial credit.
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

    /// Whether the outcome is [`Outcome::Pass`].
    pub fn passed(&self) -> bool {
        self.outcome == Outcome::Pass
    }
}

/// How a verdict came about. All but `Infra` are the model's doing and keep their reward: an outcome that is masked
/// out instead would let the policy dodge a penalty.
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
    /// The verifier's machinery failed. Never a reward: [`crate::Rubric::score`] turns it into an error.
    Infra,
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
}
