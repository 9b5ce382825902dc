//! Several verdicts to one reward. Leaves the rules themselves to the verifiers, and advantages to the trainer.

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};

use crate::{Outcome, RubricConfig, Verdict, Verifier, VerifierError};

/// Longer completions are not read at all: every part says [`Outcome::Truncated`].
pub const MAX_COMPLETION_BYTES: usize = 256 * 1024;

/// How verdicts become a total.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// 1 if every required part of positive weight passes, else 0.
    #[default]
    Binary,
    /// `sum_k weight_k * reward_k`.
    Sum,
}

/// A verifier and what its verdict counts for.
pub struct Part {
    /// The rule.
    pub verifier: Box<dyn Verifier>,
    /// Its share of a sum; 0 = logged only.
    pub weight: f32,
    /// Whether a binary total needs it to pass.
    pub required: bool,
}

/// A weighted set of verifiers.
pub struct Rubric {
    mode: Mode,
    parts: Vec<Part>,
}

/// What a rubric says of one completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The reward.
    pub total: f32,
    /// One verdict for each part, in the order of [`Rubric::names`].
    pub parts: Vec<Verdict>,
}

impl Rubric {
    /// A rubric of at least one part that counts, with distinct names.
    pub fn new(mode: Mode, parts: Vec<Part>) -> Result<Self, VerifierError> {
        for (index, part) in parts.iter().enumerate() {
            let name = part.verifier.name();
            if parts[..index].iter().any(|p| p.verifier.name() == name) {
                return Err(VerifierError::config(name, "two verifiers have this name; give one another `name`"));
            }
            let negative = mode == Mode::Binary && part.weight < 0.0;
            if !part.weight.is_finite() || negative {
                let problem = format!("weight {} must be finite, and at least 0 in mode `binary`", part.weight);
                return Err(VerifierError::config(name, problem));
            }
        }
        let rubric = Self { mode, parts };
        if !rubric.parts.iter().any(|part| rubric.counts(part)) {
            let problem = "no verifier counts towards the total; give one a weight above 0 and `required = true`";
            return Err(VerifierError::config("rubric", problem));
        }
        Ok(rubric)
    }

    /// The rubric that a config describes.
    pub fn from_config(config: &RubricConfig) -> Result<Self, VerifierError> {
        let parts = config.verifiers.iter().map(|verifier| {
            Ok(Part { verifier: verifier.build()?, weight: verifier.weight, required: verifier.required })
        });
        Self::new(config.mode, parts.collect::<Result<_, VerifierError>>()?)
    }

    /// Names of the parts, in order.
    pub fn names(&self) -> Vec<&str> {
        self.parts.iter().map(|part| part.verifier.name()).collect()
    }

    /// Judges one completion by every part.
    pub fn score(&self, example: &Example, completion: &str) -> Result<Score, VerifierError> {
        let parts: Vec<_> =
            self.parts.iter().map(|part| judge(part, example, completion)).collect::<Result<_, VerifierError>>()?;
        let mut judged = self.parts.iter().zip(&parts);
        let total = match self.mode {
            Mode::Binary => f32::from(judged.all(|(part, verdict)| !self.counts(part) || verdict.passed())),
            Mode::Sum => judged.map(|(part, verdict)| part.weight * verdict.reward).sum(),
        };
        Ok(Score { total, parts })
    }

    fn counts(&self, part: &Part) -> bool {
        match self.mode {
            Mode::Binary => part.required && part.weight > 0.0,
            Mode::Sum => part.weight != 0.0,
        }
    }
}

/// One verdict, held to the contract: machinery that failed and rewards that are no numbers are errors.
fn judge(part: &Part, example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
    if completion.len() > MAX_COMPLETION_BYTES {
        return Ok(Verdict::zero(Outcome::Truncated, "the completion is longer than 256 KiB"));
    }
    let verdict = part.verifier.verify(example, completion)?;
    if verdict.outcome == Outcome::Infra || !verdict.reward.is_finite() {
        return Err(VerifierError::Infra {
            verifier: part.verifier.name().into(),
            id: example.id.clone(),
            problem: format!("reward {}, outcome {:?}, {}", verdict.reward, verdict.outcome, verdict.reason),
        });
    }
    Ok(verdict)
}
