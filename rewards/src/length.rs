//! Shaping terms of a completion's length. Tokens are counted where the trainer hands them in; this crate knows no
//! tokenizer, so that a text alone has words and characters only.

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};

use crate::words::units;
use crate::{Outcome, Reference, Submission, Verdict, Verifier, VerifierConfig, VerifierError, VerifierOptions};

/// What a length is counted in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LengthUnit {
    /// Runs of letters and digits; each character of a script without spaces.
    #[default]
    Words,
    /// Unicode characters.
    Characters,
    /// Sampled tokens. Where only the text is known, the term does not apply.
    Tokens,
}

impl LengthUnit {
    fn count(self, submission: &Submission) -> Option<usize> {
        match self {
            Self::Words => Some(units(submission.completion).count()),
            Self::Characters => Some(submission.completion.chars().count()),
            Self::Tokens => Some(submission.tokens.len()).filter(|tokens| *tokens > 0),
        }
    }
}

/// Options of kind `length`: the rule, and its numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
pub enum LengthOptions {
    /// Soft overlong punishment of DAPO (arXiv:2503.14476, equation 13), for length `l`:
    /// 0 up to `max - cache`, `((max - cache) - l) / cache` up to `max`, and -1 beyond.
    SoftOverlong {
        /// Length from which the punishment is whole.
        max: usize,
        /// How far before `max` it begins; 0 for a step.
        cache: usize,
        /// What is counted.
        #[serde(default)]
        unit: LengthUnit,
    },
    /// Cosine reward of Yeo et al. (arXiv:2502.03373, section 3.2), in place of the reward of another verifier:
    /// `exceeded` at `max` and beyond, else `b + (a - b) / 2 * (1 + cos(pi * l / max))`, from `a` at length 0 to `b` at
    /// `max`, with (a, b) = `right` or `wrong` as that verifier says.
    Cosine {
        /// Longest completion.
        max: usize,
        /// What is counted.
        #[serde(default)]
        unit: LengthUnit,
        /// The verifier that says what is right: a table with its `kind` and keys.
        of: Box<VerifierOptions>,
        /// Rewards of a right completion, the shortest and the longest.
        #[serde(default = "right")]
        right: (f64, f64),
        /// Rewards of a wrong one: thinking longer costs it less.
        #[serde(default = "wrong")]
        wrong: (f64, f64),
        /// Reward of one that is too long, right or not.
        #[serde(default = "exceeded")]
        exceeded: f64,
    },
}

fn right() -> (f64, f64) {
    (2.0, 1.0)
}

fn wrong() -> (f64, f64) {
    (-10.0, 0.0)
}

fn exceeded() -> f64 {
    -10.0
}

/// Rewards by length, as one of the two rules says.
///
/// ```
/// use reckon_datasets::Example;
/// use reckon_rewards::{Length, LengthOptions, LengthUnit, Verifier};
/// let options = LengthOptions::SoftOverlong { max: 10, cache: 4, unit: LengthUnit::Words };
/// let verifier = Length::new("overlong", &options)?;
/// let example = Example { id: "1".into(), question: "?".into(), answer: "4".into(), ..Example::default() };
/// for (words, reward) in [(6, 0.0), (7, -0.25), (10, -1.0), (11, -1.0)] {
///     assert_eq!(verifier.verify(&example, &"word ".repeat(words))?.reward, reward);
/// }
/// # Ok::<(), reckon_rewards::VerifierError>(())
/// ```
pub struct Length {
    name: String,
    rule: Rule,
    unit: LengthUnit,
    max: usize,
}

enum Rule {
    SoftOverlong { cache: usize },
    Cosine { of: Box<dyn Verifier>, right: (f64, f64), wrong: (f64, f64), exceeded: f64 },
}

impl Length {
    /// A verifier called `name`.
    pub fn new(name: &str, options: &LengthOptions) -> Result<Self, VerifierError> {
        let config = |problem: String| VerifierError::config(name, problem);
        let (rule, unit, max) = match options {
            LengthOptions::SoftOverlong { max, cache, unit } => {
                if cache > max {
                    return Err(config(format!("`cache = {cache}` must be at most `max = {max}`")));
                }
                (Rule::SoftOverlong { cache: *cache }, *unit, *max)
            }
            LengthOptions::Cosine { max, unit, of, right, wrong, exceeded } => {
                if ![right.0, right.1, wrong.0, wrong.1, *exceeded].iter().all(|reward| (*reward as f32).is_finite()) {
                    return Err(config("`right`, `wrong` and `exceeded` must be finite".into()));
                }
                let of = VerifierConfig::new((**of).clone()).build()?;
                (Rule::Cosine { of, right: *right, wrong: *wrong, exceeded: *exceeded }, *unit, *max)
            }
        };
        if max == 0 {
            return Err(config("`max = 0` must be above 0".into()));
        }
        Ok(Self { name: name.into(), rule, unit, max })
    }

    fn judge(&self, submission: &Submission) -> Result<Verdict, VerifierError> {
        let Some(length) = self.unit.count(submission) else {
            return Ok(Verdict::zero(Outcome::Skipped, "the number of tokens is not known"));
        };
        match &self.rule {
            Rule::SoftOverlong { cache } => {
                let reward = soft_overlong(length, self.max, *cache);
                let outcome = if reward == 0.0 { Outcome::Pass } else { Outcome::Fail };
                let reason = format!("length {length} of {}", self.max).into();
                Ok(Verdict { reward, outcome, parsed: None, reason })
            }
            Rule::Cosine { of, right, wrong, exceeded } => {
                let mut verdict = of.verify_batch(std::slice::from_ref(submission))?.remove(0);
                if !verdict.outcome.is_judged() {
                    return Ok(verdict);
                }
                verdict.reward = match length >= self.max {
                    true => *exceeded as f32,
                    false => cosine(length, self.max, if verdict.passed() { *right } else { *wrong }),
                };
                Ok(verdict)
            }
        }
    }
}

impl Verifier for Length {
    fn name(&self) -> &str {
        &self.name
    }

    fn verify(&self, example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        self.judge(&Submission::new(example, completion))
    }

    fn verify_batch(&self, batch: &[Submission]) -> Result<Vec<Verdict>, VerifierError> {
        batch.iter().map(|submission| self.judge(submission)).collect()
    }

    fn reference(&self, example: &Example) -> Option<Reference> {
        match &self.rule {
            Rule::SoftOverlong { .. } => None,
            Rule::Cosine { of, .. } => of.reference(example),
        }
    }

    fn lay_out(&self, draft: &str) -> String {
        match &self.rule {
            Rule::SoftOverlong { .. } => draft.to_owned(),
            Rule::Cosine { of, .. } => of.lay_out(draft),
        }
    }

    fn wanted_reward(&self) -> Option<f64> {
        match &self.rule {
            Rule::SoftOverlong { .. } => None,
            Rule::Cosine { of, .. } => of.wanted_reward(),
        }
    }
}

/// DAPO's punishment of a completion of `length` tokens near or beyond `max`, to be added to its reward.
///
/// ```text
/// 0                          length <= max - cache
/// (max - cache - length)/cache       up to max
/// -1                                 beyond           (arXiv:2503.14476, equation 13)
/// ```
/// Made for rewards of 1 and -1. With rewards of 1 and 0 it weighs twice as much against the reward.
pub fn soft_overlong(length: usize, max: usize, cache: usize) -> f32 {
    let over = length.saturating_sub(max.saturating_sub(cache));
    if length > max { -1.0 } else { 0.0 - over as f32 / cache.max(1) as f32 }
}

fn cosine(length: usize, max: usize, (a, b): (f64, f64)) -> f32 {
    let angle = std::f64::consts::PI * length as f64 / max as f64;
    (b + (a - b) / 2.0 * (1.0 + angle.cos())) as f32
}
