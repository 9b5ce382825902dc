//! A shaping term: the share of n-grams that a completion has said before. Counted over words, not tokens: a
//! repetition is one whatever the tokenizer.

use std::collections::HashSet;

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};

use crate::words::units;
use crate::{AnswerFrom, ExtractOptions, Extractor, Outcome, Verdict, Verifier, VerifierError};

/// Options of kind `repetition`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RepetitionOptions {
    /// Words of an n-gram.
    pub n: usize,
    /// Share of repeated n-grams up to which the verdict is a pass.
    pub max_share: f64,
    /// What is looked at.
    pub extract: ExtractOptions,
}

impl Default for RepetitionOptions {
    fn default() -> Self {
        let extract = ExtractOptions { from: AnswerFrom::Whole, ..ExtractOptions::default() };
        Self { n: 3, max_share: 0.3, extract }
    }
}

/// Takes off the share of repeated n-grams, `-(1 - distinct / all)`: 0 without a repetition, towards -1 for a loop
/// (the penalty of Yeo et al. 2025, arXiv:2502.03373, over a whole completion). Case and punctuation do not count.
///
/// ```
/// use reckon_datasets::Example;
/// use reckon_rewards::{Repetition, RepetitionOptions, Verifier};
/// let verifier = Repetition::new("loops", &RepetitionOptions::default())?;
/// let example = Example { id: "1".into(), question: "?".into(), answer: "4".into(), ..Example::default() };
/// assert_eq!(verifier.verify(&example, "Two and two make four.")?.reward, 0.0);
/// // a b c a b c: 4 trigrams, 3 of them distinct.
/// assert_eq!(verifier.verify(&example, "a b c, A B C")?.reward, -0.25);
/// # Ok::<(), reckon_rewards::VerifierError>(())
/// ```
#[derive(Debug)]
pub struct Repetition {
    name: String,
    options: RepetitionOptions,
    extractor: Extractor,
}

impl Repetition {
    /// A verifier called `name`.
    pub fn new(name: &str, options: &RepetitionOptions) -> Result<Self, VerifierError> {
        if options.n == 0 || !(0.0..=1.0).contains(&options.max_share) {
            let (n, share) = (options.n, options.max_share);
            let problem = format!("`n = {n}` must be above 0, and `max_share = {share}` from 0 to 1");
            return Err(VerifierError::config(name, problem));
        }
        let extractor = Extractor::new(name, &options.extract)?;
        Ok(Self { name: name.into(), options: options.clone(), extractor })
    }
}

impl Verifier for Repetition {
    fn name(&self) -> &str {
        &self.name
    }

    fn verify(&self, _example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        Ok(self.extractor.judge(completion, |text| {
            let text = text.to_lowercase();
            let words: Vec<&str> = units(&text).collect();
            let all = words.len().saturating_sub(self.options.n - 1);
            let distinct = words.windows(self.options.n).collect::<HashSet<_>>().len();
            let share = (all - distinct) as f64 / all.max(1) as f64;
            let outcome = if share <= self.options.max_share { Outcome::Pass } else { Outcome::Fail };
            let reason = format!("{} of {all} n-grams repeated", all - distinct);
            // Without a repetition 0, not -0.
            Verdict { reward: (0.0 - share) as f32, outcome, parsed: None, reason: reason.into() }
        }))
    }
}
