//! Several verdicts to one reward. Leaves the rules themselves to the verifiers, and advantages to the trainer.

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};

use crate::{Outcome, Ramp, Reference, Registry, RubricConfig, Scope, Submission, Verdict, Verifier, VerifierError};

/// Longer completions are not read at all: every part says [`Outcome::Truncated`].
pub const MAX_COMPLETION_BYTES: usize = 256 * 1024;

/// The default of [`RubricConfig::max_error_share`].
pub(crate) const MAX_ERROR_SHARE: f64 = 0.5;

/// How verdicts become a total.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// 1 if every required part of positive weight that judges passes; else 0.
    #[default]
    Binary,
    /// `sum_k weight_k * reward_k` over the parts that judge.
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
    max_error_share: f64,
    /// Of each part, when it counts; none for all of a run.
    ramps: Vec<Option<Ramp>>,
}

/// What a rubric says of one completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The reward. `None` where the completion is not judged: no part that counts judges it, or one failed over it and
    /// is told to go on. Such a completion is in no mean, and nothing is learned from it.
    pub total: Option<f32>,
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
        let ramps = vec![None; parts.len()];
        let rubric = Self { mode, parts, max_error_share: MAX_ERROR_SHARE, ramps };
        if !rubric.parts.iter().any(|part| rubric.counts(part)) {
            let problem = "no verifier counts towards the total; give one a weight above 0 and `required = true`";
            return Err(VerifierError::config("rubric", problem));
        }
        Ok(rubric)
    }

    /// The rubric that a config describes, of the verifiers in this crate.
    pub fn from_config(config: &RubricConfig) -> Result<Self, VerifierError> {
        Self::from_config_with(config, &Registry::default())
    }

    /// The rubric that a config describes, of the verifiers in this crate and in `registry`.
    pub fn from_config_with(config: &RubricConfig, registry: &Registry) -> Result<Self, VerifierError> {
        let parts = config.verifiers.iter().map(|part| {
            Ok(Part { verifier: part.build_with(registry)?, weight: part.weight as f32, required: part.required })
        });
        let share = config.max_error_share;
        if !(0.0..=1.0).contains(&share) {
            let problem = format!("`max_error_share = {share}` must be from 0 to 1");
            return Err(VerifierError::config("rubric", problem));
        }
        let mut rubric = Self::new(config.mode, parts.collect::<Result<_, VerifierError>>()?)?;
        rubric.max_error_share = share;
        config.schedule.iter().try_for_each(|ramp| rubric.add_ramp(ramp))?;
        Ok(rubric)
    }

    fn add_ramp(&mut self, ramp: &Ramp) -> Result<(), VerifierError> {
        let fault = |problem: String| VerifierError::config("rubric", format!("schedule: {problem}"));
        if self.mode == Mode::Binary {
            return Err(fault("parts are switched on in mode `sum` alone".into()));
        }
        let names = self.names();
        let place = names.iter().position(|name| *name == ramp.verifier).ok_or_else(|| {
            fault(format!("no verifier is called `{}`; there are {}", ramp.verifier, names.join(", ")))
        })?;
        if self.ramps[place].replace(ramp.clone()).is_some() {
            return Err(fault(format!("`{}` stands there twice", ramp.verifier)));
        }
        Ok(())
    }

    /// The total of a score in a step of training, counted from 1, where parts are switched on in the course of a run;
    /// else the total that it has.
    pub fn total_at(&self, score: &Score, step: u64) -> Option<f32> {
        if self.ramps.iter().all(Option::is_none) {
            return score.total;
        }
        let judged = score.parts.iter().zip(&self.parts).zip(&self.ramps);
        let counted = judged.filter_map(|((verdict, part), ramp)| {
            Some(ramp.as_ref().map_or(1.0, |ramp| ramp.share(step)) * part.weight * verdict.judged()?)
        });
        score.total.map(|_| counted.sum())
    }

    /// Names of the parts, in order.
    pub fn names(&self) -> Vec<&str> {
        self.parts.iter().map(|part| part.verifier.name()).collect()
    }

    /// Weights of the parts in a step of training, in order; 0 for those that do not count.
    pub fn weights_at(&self, step: u64) -> Vec<f32> {
        let weight = |(part, ramp): (&Part, &Option<Ramp>)| {
            let share = ramp.as_ref().map_or(1.0, |ramp| ramp.share(step));
            if self.counts(part) { share * part.weight } else { 0.0 }
        };
        self.parts.iter().zip(&self.ramps).map(weight).collect()
    }

    /// How much of a group the parts must see at once.
    pub fn scope(&self) -> Scope {
        match self.parts.iter().any(|part| part.verifier.scope() == Scope::Group) {
            true => Scope::Group,
            false => Scope::Completion,
        }
    }

    /// Whether a part shares a batch out itself: [`Verifier::spreads`].
    pub fn spreads(&self) -> bool {
        self.parts.iter().any(|part| part.verifier.spreads())
    }

    /// A rubric of one verifier that counts whole.
    pub fn of(verifier: Box<dyn Verifier>) -> Result<Self, VerifierError> {
        Self::new(Mode::Binary, vec![Part { verifier, weight: 1.0, required: true }])
    }

    /// Judges one completion by every part.
    pub fn score(&self, example: &Example, completion: &str) -> Result<Score, VerifierError> {
        Ok(self.score_batch(&[Submission::new(example, completion)])?.remove(0))
    }

    /// Judges several completions by every part: one score each, in order. A rubric of [`Scope::Group`] expects all
    /// completions of one prompt.
    pub fn score_batch(&self, batch: &[Submission]) -> Result<Vec<Score>, VerifierError> {
        let mut verdicts = vec![Vec::with_capacity(self.parts.len()); batch.len()];
        for part in &self.parts {
            verdicts.iter_mut().zip(judge(part, batch)?).for_each(|(parts, verdict)| parts.push(verdict));
        }
        Ok(verdicts.into_iter().map(|parts| Score { total: self.total(&parts), parts }).collect())
    }

    /// Refuses to go on where a part failed over too large a share of the completions that were judged together: those
    /// of a step, or of an evaluation.
    pub fn check_errors(&self, judged: &[(&Example, &Score)]) -> Result<(), VerifierError> {
        for (index, name) in self.names().into_iter().enumerate() {
            let of_part = judged.iter().filter_map(|(example, score)| Some((example, score.parts.get(index)?)));
            let failed: Vec<_> = of_part.filter(|(_, verdict)| verdict.outcome == Outcome::Error).collect();
            let Some((example, verdict)) = failed.first() else { continue };
            if failed.len() as f64 > self.max_error_share * judged.len() as f64 {
                let (count, all, share) = (failed.len(), judged.len(), self.max_error_share);
                let reason = &verdict.reason;
                let problem = format!(
                    "{reason}; it failed over {count} of {all} completions, more than max_error_share = {share}"
                );
                return Err(VerifierError::infra(name, example, problem));
            }
        }
        Ok(())
    }

    /// Refuses an example that a part could not judge, whatever the completion.
    pub fn check(&self, example: &Example) -> Result<(), VerifierError> {
        self.parts.iter().try_for_each(|part| part.verifier.check(example))
    }

    /// The answer that the first part to know one gives for `example`.
    pub fn reference(&self, example: &Example) -> Option<Reference> {
        self.counting().find_map(|part| part.verifier.reference(example))
    }

    /// The reward of a tool for which every part that counts and reads one passes a completion: the largest that one of
    /// them wants.
    pub fn wanted_reward(&self) -> Option<f64> {
        self.counting().filter_map(|part| part.verifier.wanted_reward()).reduce(f64::max)
    }

    /// A completion of `answers`, one after the other, that is well formed to every part that counts. The part that
    /// compares with a reference lays each answer out first, the others put what they want around all of them.
    pub fn lay_out(&self, example: &Example, answers: &[&str]) -> String {
        let knows = |part: &&Part| part.verifier.reference(example).is_some();
        let first = self.counting().find(knows);
        let drafts = answers
            .iter()
            .map(|answer| first.map_or_else(|| (*answer).to_owned(), |part| part.verifier.lay_out(answer)));
        let draft = drafts.collect::<Vec<_>>().join("\n");
        self.counting().fold(draft, |draft, part| part.verifier.lay_out(&draft))
    }

    /// Whether a score says that the completion is right: a total of 1, or, in a sum, a pass by every part that counts
    /// and compares with a reference, and by all that count where none does.
    pub fn accepts(&self, example: &Example, score: &Score) -> bool {
        if self.mode == Mode::Binary {
            return score.total.is_some_and(|total| total >= 1.0);
        }
        let counts = |(part, verdict): &(&Part, &Verdict)| self.counts(part) && verdict.outcome.is_judged();
        let counting = || self.parts.iter().zip(&score.parts).filter(counts);
        let knows = |part: &Part| part.verifier.reference(example).is_some();
        let any = counting().any(|(part, _)| knows(part));
        let passed = || counting().filter(|(part, _)| !any || knows(part)).all(|(_, verdict)| verdict.passed());
        score.total.is_some() && passed()
    }

    fn counting(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| self.counts(part))
    }

    /// Parts that do not judge are left out; a failure of one that counts leaves out the whole completion, as nobody
    /// knows what it would have said.
    fn total(&self, verdicts: &[Verdict]) -> Option<f32> {
        let counting = || self.parts.iter().zip(verdicts).filter(|(part, _)| self.counts(part));
        if counting().any(|(_, verdict)| verdict.outcome == Outcome::Error) {
            return None;
        }
        let mut judged = counting().filter_map(|(part, verdict)| Some((part, verdict, verdict.judged()?))).peekable();
        judged.peek()?;
        Some(match self.mode {
            Mode::Binary => f32::from(judged.all(|(_, verdict, _)| verdict.passed())),
            Mode::Sum => judged.map(|(part, _, reward)| part.weight * reward).sum(),
        })
    }

    fn counts(&self, part: &Part) -> bool {
        match self.mode {
            Mode::Binary => part.required && part.weight > 0.0,
            Mode::Sum => part.weight != 0.0,
        }
    }
}

/// A verdict for each submission, held to the contract: verdicts that are missing and rewards that are no numbers are
/// errors.
fn judge(part: &Part, batch: &[Submission]) -> Result<Vec<Verdict>, VerifierError> {
    let name = part.verifier.name();
    let (read, long): (Vec<_>, Vec<_>) =
        (0..batch.len()).partition(|&i| batch[i].completion.len() <= MAX_COMPLETION_BYTES);
    let given: Vec<Submission> = read.iter().map(|&i| batch[i]).collect();
    let verdicts = if given.is_empty() { Vec::new() } else { part.verifier.verify_batch(&given)? };
    if let Some(first) = given.first().filter(|_| verdicts.len() != given.len()) {
        let problem = format!("{} verdicts for a batch of {}", verdicts.len(), given.len());
        return Err(VerifierError::infra(name, first.example, problem));
    }
    for (submission, verdict) in given.iter().zip(&verdicts) {
        if !verdict.reward.is_finite() {
            let problem = format!("reward {}, outcome {:?}, {}", verdict.reward, verdict.outcome, verdict.reason);
            return Err(VerifierError::infra(name, submission.example, problem));
        }
    }
    let unread = long.into_iter().map(|i| (i, Verdict::zero(Outcome::Truncated, "longer than 256 KiB")));
    let mut placed: Vec<_> = read.into_iter().zip(verdicts).chain(unread).collect();
    placed.sort_by_key(|(place, _)| *place);
    Ok(placed.into_iter().map(|(_, verdict)| verdict).collect())
}
