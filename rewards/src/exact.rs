//! The answer is a reference, character for character. Leaves numbers to [`crate::Numeric`].

use std::borrow::Cow;

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};

use crate::{ExtractOptions, Extractor, Reference, Verdict, Verifier, VerifierError};

/// Options of kind `exact`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExactOptions {
    /// Ignore white space at both ends.
    pub trim: bool,
    /// Compare lower-cased (Unicode's default mapping).
    pub ignore_case: bool,
    /// Read every run of white space as one space.
    pub collapse_whitespace: bool,
    /// Where the answer is.
    pub extract: ExtractOptions,
}

impl Default for ExactOptions {
    fn default() -> Self {
        Self { trim: true, ignore_case: false, collapse_whitespace: false, extract: ExtractOptions::default() }
    }
}

/// Passes an answer that equals the reference, or one of them.
///
/// ```
/// use reckon_datasets::Example;
/// use reckon_rewards::{Exact, ExactOptions, Verifier};
/// let verifier = Exact::new("city", &ExactOptions { ignore_case: true, ..Default::default() })?;
/// let example = Example { id: "fr".into(), question: "?".into(), answer: "Paris".into(), ..Example::default() };
/// assert!(verifier.verify(&example, "<answer>PARIS</answer>")?.passed());
/// assert!(!verifier.verify(&example, "<answer>Paris, I think</answer>")?.passed());
/// # Ok::<(), reckon_rewards::VerifierError>(())
/// ```
#[derive(Debug)]
pub struct Exact {
    name: String,
    options: ExactOptions,
    extractor: Extractor,
}

impl Exact {
    /// A verifier called `name`.
    pub fn new(name: &str, options: &ExactOptions) -> Result<Self, VerifierError> {
        let extractor = Extractor::new(name, &options.extract)?;
        Ok(Self { name: name.into(), options: options.clone(), extractor })
    }

    fn normal<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut normal = Cow::Borrowed(if self.options.trim { text.trim() } else { text });
        if self.options.collapse_whitespace {
            normal = Cow::Owned(collapse(&normal));
        }
        if self.options.ignore_case {
            normal = Cow::Owned(normal.to_lowercase());
        }
        normal
    }
}

impl Verifier for Exact {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self, example: &Example) -> Result<(), VerifierError> {
        self.verify(example, "").map(drop)
    }

    fn verify(&self, example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        let references: Vec<_> = example.answer.each().map(|right| self.normal(right)).collect();
        if references.iter().any(|reference| reference.is_empty()) {
            let problem = "its `answer` is empty, which an empty completion would equal; drop the row";
            return Err(VerifierError::example(&self.name, example, problem));
        }
        Ok(self.extractor.judge(completion, |answer| {
            if references.contains(&self.normal(answer)) {
                Verdict::pass(answer, "equal")
            } else {
                Verdict::fail(answer, "not the reference")
            }
        }))
    }

    fn reference(&self, example: &Example) -> Option<Reference> {
        example.answer.each().find_map(Reference::value)
    }

    fn lay_out(&self, draft: &str) -> String {
        self.extractor.lay_out(draft)
    }
}

fn collapse(text: &str) -> String {
    let mut collapsed = String::with_capacity(text.len());
    let mut in_space = false;
    for c in text.chars() {
        if !c.is_whitespace() {
            collapsed.push(c);
        } else if !in_space {
            collapsed.push(' ');
        }
        in_space = c.is_whitespace();
    }
    collapsed
}
