//! The answer matches a regular expression from the config. Linear time: the engine has no back-references.

use reckon_datasets::Example;
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::{ExtractOptions, Extractor, Outcome, Verdict, Verifier, VerifierError};

/// How much of the answer must match.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchMode {
    /// All of it.
    #[default]
    Full,
    /// Some part of it.
    Search,
}

/// Options of kind `regex`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatternOptions {
    /// The expression, in the syntax of Rust's `regex`.
    pub pattern: String,
    /// How much of the answer must match.
    #[serde(default, rename = "match")]
    pub mode: MatchMode,
    /// Largest compiled program, in bytes.
    #[serde(default = "default_size_limit")]
    pub size_limit: usize,
    /// Where the text to match is.
    #[serde(default)]
    pub extract: ExtractOptions,
}

fn default_size_limit() -> usize {
    1 << 20
}

impl PatternOptions {
    /// The pattern with every other option at its default.
    pub fn new(pattern: &str) -> Self {
        let (mode, extract) = (MatchMode::Full, ExtractOptions::default());
        Self { pattern: pattern.into(), mode, size_limit: default_size_limit(), extract }
    }
}

/// Passes an answer that matches; the reference is not looked at.
///
/// ```
/// use reckon_datasets::Example;
/// use reckon_rewards::{Pattern, PatternOptions, Verifier};
/// let verifier = Pattern::new("hex", &PatternOptions::new("[0-9a-f]+"))?;
/// let example = Example { id: "1".into(), question: "?".into(), answer: "".into(), ..Example::default() };
/// assert!(verifier.verify(&example, "<answer>beef</answer>")?.passed());
/// assert!(!verifier.verify(&example, "<answer>beef stew</answer>")?.passed());
/// # Ok::<(), reckon_rewards::VerifierError>(())
/// ```
#[derive(Debug)]
pub struct Pattern {
    name: String,
    regex: Regex,
    extractor: Extractor,
}

impl Pattern {
    /// A verifier called `name`.
    pub fn new(name: &str, options: &PatternOptions) -> Result<Self, VerifierError> {
        let compile = |pattern: &str| {
            RegexBuilder::new(pattern).size_limit(options.size_limit).build().map_err(|error| {
                VerifierError::config(name, format!("`pattern = {:?}` cannot be compiled: {error}", options.pattern))
            })
        };
        // Compiled bare first: an unbalanced `)` must not close the group that anchors a full match.
        let mut regex = compile(&options.pattern)?;
        if options.mode == MatchMode::Full {
            regex = compile(&format!(r"\A(?:{})\z", options.pattern))?;
        }
        Ok(Self { name: name.into(), regex, extractor: Extractor::new(name, &options.extract)? })
    }
}

impl Verifier for Pattern {
    fn name(&self) -> &str {
        &self.name
    }

    fn verify(&self, _example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        Ok(self.extractor.judge(completion, |answer| match self.regex.find(answer) {
            Some(found) => Verdict::pass(found.as_str(), "matches"),
            None => Verdict::zero(Outcome::Fail, "does not match the pattern"),
        }))
    }

    fn lay_out(&self, draft: &str) -> String {
        self.extractor.lay_out(draft)
    }
}
