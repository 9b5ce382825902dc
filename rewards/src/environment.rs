//! The rewards that tools gave in a completion, as a part of a rubric: of an environment's episode, its own account is the
//! reward. Which tools give any, and when, is left to `tools/`; the text is not read.

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};

use crate::{Outcome, Submission, Verdict, Verifier, VerifierError};

/// Which of a completion's rewards counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardOf {
    /// That of the last call that had one.
    #[default]
    Last,
    /// The sum of all.
    Sum,
    /// The largest.
    Largest,
}

impl RewardOf {
    fn of(self, rewards: &[f64]) -> Option<f64> {
        match self {
            Self::Last => rewards.last().copied(),
            Self::Sum => (!rewards.is_empty()).then(|| rewards.iter().sum()),
            Self::Largest => rewards.iter().copied().reduce(f64::max),
        }
    }

    fn said(self) -> &'static str {
        match self {
            Self::Last => "the last",
            Self::Sum => "the sum",
            Self::Largest => "the largest",
        }
    }
}

/// Options of kind `environment`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnvironmentOptions {
    /// Which of the rewards counts.
    pub of: RewardOf,
    /// The reward that becomes 0 and the one that becomes 1: between them along a line, outside as the nearer one.
    pub range: [f64; 2],
    /// Where in 0 to 1 the verdict begins to be a pass.
    pub pass_at: f64,
}

impl Default for EnvironmentOptions {
    fn default() -> Self {
        Self { of: RewardOf::default(), range: [0.0, 1.0], pass_at: 1.0 }
    }
}

/// Rewards a completion by what its tools gave: `(r - low) / (high - low)`, clamped to 0..1, of the last reward, the sum
/// or the largest. A completion without a reward gets 0: it would escape a bad one by not calling, were it left out.
///
/// ```
/// use reckon_datasets::Example;
/// use reckon_rewards::{Environment, EnvironmentOptions, Submission, Verifier};
/// let options = EnvironmentOptions { range: [-1.0, 1.0], ..EnvironmentOptions::default() };
/// let verifier = Environment::new("game", &options)?;
/// let example = Example { id: "1".into(), question: "?".into(), answer: "".into(), ..Example::default() };
/// let played = Submission { rewards: &[-1.0, 0.5], ..Submission::new(&example, "left, right") };
/// assert_eq!(verifier.verify_batch(&[played])?[0].reward, 0.75);
/// assert_eq!(verifier.verify(&example, "I would rather not")?.reward, 0.0);
/// # Ok::<(), reckon_rewards::VerifierError>(())
/// ```
#[derive(Debug)]
pub struct Environment {
    name: String,
    options: EnvironmentOptions,
}

impl Environment {
    /// A verifier called `name`.
    pub fn new(name: &str, options: &EnvironmentOptions) -> Result<Self, VerifierError> {
        let (range @ [low, high], pass_at) = (options.range, options.pass_at);
        // The difference of two huge numbers may be beyond all numbers.
        if !(low < high && (high - low).is_finite()) {
            let problem = format!("`range = {range:?}` must be two finite numbers, the lower one first");
            return Err(VerifierError::config(name, problem));
        }
        if !(pass_at > 0.0 && pass_at <= 1.0) {
            let problem =
                format!("`pass_at = {pass_at}` must be above 0 and at most 1: it is what `range` makes of a reward");
            return Err(VerifierError::config(name, problem));
        }
        Ok(Self { name: name.into(), options: options.clone() })
    }

    fn judge(&self, rewards: &[f64]) -> Verdict {
        let EnvironmentOptions { of, range: [low, high], pass_at } = self.options;
        if let Some(wrong) = rewards.iter().find(|reward| !reward.is_finite()) {
            return Verdict::zero(Outcome::Unparsed, format!("a tool gave {wrong}, which is not a finite number"));
        }
        let Some(found) = of.of(rewards) else {
            return Verdict::zero(Outcome::Unparsed, "no tool gave a reward");
        };
        // Compared as it is stored: ten times 0.1 is 1 then. Adding 0 makes 0 of -0.
        let reward = ((found - low) / (high - low)).clamp(0.0, 1.0) as f32 + 0.0;
        let outcome = if reward >= pass_at as f32 { Outcome::Pass } else { Outcome::Fail };
        let reason = format!("{} of {} is {found:?}", of.said(), rewards.len());
        Verdict { reward, outcome, parsed: Some(format!("{found:?}")), reason: reason.into() }
    }
}

impl Verifier for Environment {
    fn name(&self) -> &str {
        &self.name
    }

    fn verify(&self, _: &Example, _: &str) -> Result<Verdict, VerifierError> {
        Ok(self.judge(&[]))
    }

    fn wanted_reward(&self) -> Option<f64> {
        Some(self.options.range[1])
    }

    fn verify_batch(&self, batch: &[Submission]) -> Result<Vec<Verdict>, VerifierError> {
        Ok(batch.iter().map(|submission| self.judge(submission.rewards)).collect())
    }
}
