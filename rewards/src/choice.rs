//! The answer is one lettered option. Only the shape of an answer is accepted: hunting for capitals in prose finds
//! the `A` of "A dog" and the `I` of "I think".

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};

use crate::{ExtractOptions, Extractor, Outcome, Reference, Verdict, Verifier, VerifierError};

/// Words that may lead up to the letter, each after those that it begins.
const LEADS: [&str; 8] = [
    "the correct answer is",
    "the final answer is",
    "the answer is",
    "final answer",
    "answer is",
    "answer",
    "option",
    "choice",
];

/// Options of kind `choice`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChoiceOptions {
    /// How many options there are: 5 is A to E.
    pub choices: u8,
    /// Where the answer is.
    pub extract: ExtractOptions,
}

impl Default for ChoiceOptions {
    fn default() -> Self {
        Self { choices: 5, extract: ExtractOptions::default() }
    }
}

/// Passes an answer that names one letter, which is the reference or one of them.
///
/// ```
/// use reckon_datasets::Example;
/// use reckon_rewards::{Choice, ChoiceOptions, Verifier};
/// let verifier = Choice::new("quiz", &ChoiceOptions::default())?;
/// let example = Example { id: "1".into(), question: "?".into(), answer: "B".into(), ..Example::default() };
/// for right in ["B", "(b)", "Answer: **B**", "B. the second one"] {
///     assert!(verifier.verify(&example, &format!("<answer>{right}</answer>"))?.passed());
/// }
/// assert!(!verifier.verify(&example, "<answer>B or C</answer>")?.passed());
/// # Ok::<(), reckon_rewards::VerifierError>(())
/// ```
#[derive(Debug)]
pub struct Choice {
    name: String,
    last: char,
    extractor: Extractor,
}

impl Choice {
    /// A verifier called `name`.
    pub fn new(name: &str, options: &ChoiceOptions) -> Result<Self, VerifierError> {
        if !(2..=26).contains(&options.choices) {
            let problem = format!("`choices = {}` must be from 2 to 26", options.choices);
            return Err(VerifierError::config(name, problem));
        }
        let last = char::from(b'A' + options.choices - 1);
        Ok(Self { name: name.into(), last, extractor: Extractor::new(name, &options.extract)? })
    }

    fn parse(&self, text: &str) -> Option<char> {
        let text = bare(strip_lead(bare(text)));
        let inner = text.strip_prefix(['(', '[']);
        let mut chars = inner.unwrap_or(text).chars();
        let letter = self.letter(chars.next()?)?;
        let rest = chars.as_str();
        // Prose may follow only a delimiter, or the first word of a sentence would be a choice.
        let rest = match inner {
            None if rest.is_empty() => return Some(letter),
            None => rest.strip_prefix(['.', ')', ':'])?,
            Some(_) => rest.strip_prefix([')', ']'])?,
        };
        let apart = rest.chars().next().is_none_or(|c| !c.is_alphanumeric());
        (apart && !self.names_another(rest, letter)).then_some(letter)
    }

    fn letter(&self, c: char) -> Option<char> {
        let c = c.to_ascii_uppercase();
        ('A'..=self.last).contains(&c).then_some(c)
    }

    /// Whether a lone letter in `rest` is another choice: any capital, or a small one before a bracket.
    fn names_another(&self, rest: &str, letter: char) -> bool {
        let mut before = ' ';
        let mut chars = rest.chars().peekable();
        while let Some(c) = chars.next() {
            let after = chars.peek().copied().unwrap_or(' ');
            let alone = !before.is_alphanumeric() && !after.is_alphanumeric() && before != '\'' && after != '\'';
            let pointed = c.is_ascii_uppercase() || after == ')' || after == ']';
            if alone && pointed && self.letter(c).is_some_and(|other| other != letter) {
                return true;
            }
            before = c;
        }
        false
    }
}

impl Verifier for Choice {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self, example: &Example) -> Result<(), VerifierError> {
        self.verify(example, "").map(drop)
    }

    fn verify(&self, example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        let references: Vec<char> = example.answer.each().filter_map(|right| self.parse(right)).collect();
        if references.is_empty() {
            let answer = example.answer.as_str();
            let problem = format!("its `answer` {answer:?} is not a letter from A to {}", self.last);
            return Err(VerifierError::example(&self.name, example, problem));
        }
        Ok(self.extractor.judge(completion, |answer| match self.parse(answer) {
            None => Verdict::zero(Outcome::Unparsed, "the answer is not one lettered choice"),
            Some(letter) if references.contains(&letter) => Verdict::pass(letter, "equal"),
            Some(letter) => Verdict::fail(letter, "another choice"),
        }))
    }

    fn reference(&self, example: &Example) -> Option<Reference> {
        let mut readable = example.answer.each().filter(|right| self.parse(right).is_some());
        readable.find_map(Reference::value)
    }

    fn lay_out(&self, draft: &str) -> String {
        self.extractor.lay_out(draft)
    }
}

/// Without the emphasis and LaTeX that wrap a whole answer, and without a final period behind them.
fn bare(text: &str) -> &str {
    let mut text = text.trim();
    for (open, close) in [("**", "**"), ("$", "$"), ("\\boxed{", "}"), ("\\text{", "}"), ("**", "**")] {
        let trimmed = text.strip_suffix('.').filter(|rest| rest.ends_with(close)).unwrap_or(text);
        let inner = trimmed.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
        text = inner.filter(|inner| !inner.contains(open)).unwrap_or(text).trim();
    }
    text
}

/// Without words such as `answer:`; the letter must stand apart from them.
fn strip_lead(text: &str) -> &str {
    for lead in LEADS {
        let (Some(head), Some(rest)) = (text.get(..lead.len()), text.get(lead.len()..)) else { continue };
        if head.eq_ignore_ascii_case(lead) {
            let stripped = rest.trim_start_matches(|c: char| c == ':' || c.is_whitespace());
            return if stripped.len() < rest.len() { stripped } else { text };
        }
    }
    text
}
