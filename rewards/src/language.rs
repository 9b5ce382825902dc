//! A shaping term: how much of a completion is written in the expected scripts. DeepSeek-R1 (arXiv:2501.12948, 2.3.2)
//! adds the share of words in the target language; scripts are what can be told for certain, so that English and French
//! are one here, and English and Chinese are not.

use reckon_datasets::Example;
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::{AnswerFrom, ExtractOptions, Extractor, Outcome, Verdict, Verifier, VerifierError};

/// Options of kind `language`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LanguageOptions {
    /// Unicode names of the scripts, such as `Latin`, `Cyrillic`, or `Han`, `Hiragana` and `Katakana` for Japanese.
    pub scripts: Vec<String>,
    /// Share of letters in these scripts from which the verdict is a pass.
    pub min_share: f64,
    /// Fewest letters; with fewer the share is 0, or a completion without text would be in every language.
    pub min_letters: usize,
    /// What is looked at.
    pub extract: ExtractOptions,
}

impl Default for LanguageOptions {
    fn default() -> Self {
        let extract = ExtractOptions { from: AnswerFrom::Whole, ..ExtractOptions::default() };
        Self { scripts: vec!["Latin".into()], min_share: 0.9, min_letters: 16, extract }
    }
}

/// Rewards the share of letters in the expected scripts, from 0 to 1.
///
/// ```
/// use reckon_datasets::Example;
/// use reckon_rewards::{Language, LanguageOptions, Verifier};
/// let verifier = Language::new("latin", &LanguageOptions::default())?;
/// let example = Example { id: "1".into(), question: "?".into(), answer: "4".into(), ..Example::default() };
/// assert_eq!(verifier.verify(&example, "Two and two make four.")?.reward, 1.0);
/// let mixed = verifier.verify(&example, "Two and два make четыре.")?;
/// assert!(mixed.reward > 0.4 && mixed.reward < 0.6 && !mixed.passed());
/// # Ok::<(), reckon_rewards::VerifierError>(())
/// ```
#[derive(Debug)]
pub struct Language {
    name: String,
    options: LanguageOptions,
    expected: Regex,
    extractor: Extractor,
}

impl Language {
    /// A verifier called `name`.
    pub fn new(name: &str, options: &LanguageOptions) -> Result<Self, VerifierError> {
        if options.scripts.is_empty() || !(0.0..=1.0).contains(&options.min_share) {
            let share = options.min_share;
            let problem = format!("`scripts` needs a script, and `min_share = {share}` must be from 0 to 1");
            return Err(VerifierError::config(name, problem));
        }
        let expected = letters_of(&options.scripts).map_err(|problem| VerifierError::config(name, problem))?;
        let extractor = Extractor::new(name, &options.extract)?;
        Ok(Self { name: name.into(), options: options.clone(), expected, extractor })
    }
}

/// Runs of letters in any of `scripts`, or in several: `ー` belongs to Hiragana and Katakana, `ª` to all.
fn letters_of(scripts: &[String]) -> Result<Regex, String> {
    let mut classes = r"\p{sc=Common}\p{sc=Inherited}".to_owned();
    for script in scripts {
        let class = format!(r"\p{{scx={script}}}");
        let plain = !script.is_empty() && script.chars().all(|c| c.is_ascii_alphabetic() || c == '_');
        if !plain || Regex::new(&class).is_err() {
            return Err(format!("`scripts` holds `{script}`, which is no Unicode script; write one as in `Latin`"));
        }
        classes += &class;
    }
    Regex::new(&format!(r"[\p{{Alphabetic}}&&[{classes}]]+")).map_err(|error| error.to_string())
}

impl Verifier for Language {
    fn name(&self) -> &str {
        &self.name
    }

    fn verify(&self, _example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        Ok(self.extractor.judge(completion, |text| {
            let letters = text.chars().filter(|c| c.is_alphabetic()).count();
            if letters < self.options.min_letters {
                return Verdict::zero(Outcome::Unparsed, "fewer letters than `min_letters`");
            }
            let expected: usize = self.expected.find_iter(text).map(|run| run.as_str().chars().count()).sum();
            let share = expected as f64 / letters as f64;
            let outcome = if share >= self.options.min_share { Outcome::Pass } else { Outcome::Fail };
            let reason = format!("{expected} of {letters} letters in the expected scripts");
            Verdict { reward: share.min(1.0) as f32, outcome, parsed: None, reason: reason.into() }
        }))
    }
}
