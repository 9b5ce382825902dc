//! The answer is mathematics equal to the reference. Nothing is evaluated by a computer algebra system: an answer is
//! found ([`locate`]), read into a typed value ([`parser`]), and compared by exact arithmetic first ([`poly`]) and
//! seeded numeric probing second ([`probe`]), all within a budget ([`fuel`]).

mod answer;
mod ball;
mod boxes;
mod brackets;
mod clean;
mod clock;
mod compare;
mod exact;
mod expr;
mod fuel;
mod label;
mod layout;
mod lexer;
mod literal;
mod locate;
mod parser;
mod poly;
mod probe;
mod real;
mod region;
mod relation;
mod solutions;
mod stated;
mod text;
mod token;
mod units;
mod value;

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};

use crate::{AnswerFrom, ExtractOptions, Extractor, Outcome, Reference, Verdict, Verifier, VerifierError};
use answer::Answer;
use fuel::Fuel;

/// Where kind `math` looks for the answer, always behind the last closed think block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MathFrom {
    /// As `Marked`, unless `the final answer is` follows the last box; in a text without marks, all of it if it is
    /// mathematics, or what `answer is` introduces, or the last formula or number that it states.
    #[default]
    Any,
    /// The answer block, the last `\boxed{}`, or what follows the last `####`.
    Marked,
    /// The last `\boxed{}` alone.
    Boxed,
}

/// The `extract` table of kind `math`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MathExtract {
    /// Where the answer is.
    pub from: MathFrom,
    /// Name of the answer's tag.
    pub tag: String,
    /// Name of the thoughts' tag.
    pub think_tag: String,
}

impl Default for MathExtract {
    fn default() -> Self {
        let ExtractOptions { tag, think_tag, .. } = ExtractOptions::default();
        Self { from: MathFrom::default(), tag, think_tag }
    }
}

/// Options of kind `math`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MathOptions {
    /// A decimal with at least this many places stands for every number that rounds to it.
    pub decimal_places: u32,
    /// Where the answer is.
    pub extract: MathExtract,
}

impl Default for MathOptions {
    fn default() -> Self {
        Self { decimal_places: 6, extract: MathExtract::default() }
    }
}

/// Passes an answer that is equal to the reference: as a number, expression, tuple, set, interval, matrix, equation,
/// inequality, quantity or text.
///
/// ```
/// use reckon_datasets::Example;
/// use reckon_rewards::{Math, MathOptions, Verifier};
/// let verifier = Math::new("answer", &MathOptions::default())?;
/// let passes = |answer: &str, completion: &str| {
///     let (question, answer) = ("?".into(), answer.into());
///     let example = Example { id: "1".into(), question, answer, ..Example::default() };
///     verifier.verify(&example, completion).map(|verdict| verdict.passed())
/// };
/// assert!(passes("$\\frac{\\sqrt 3}{3}$", "<think>\\boxed{2}?</think> It is \\boxed{1/\\sqrt{3}}.")?);
/// assert!(passes("$x^2-1$", "\\boxed{(x-1)(x+1)}")?);
/// assert!(passes("x<1 \\text{ or } x>2", "\\boxed{(-\\infty,1)\\cup(2,\\infty)}")?);
/// assert!(!passes("5050", "\\boxed{\\sum_{k=1}^{100} k}")?);   // restates the question
/// assert!(!passes("2", "\\boxed{1} or \\boxed{2}")?);          // two answers
/// # Ok::<(), reckon_rewards::VerifierError>(())
/// ```
#[derive(Debug)]
pub struct Math {
    name: String,
    options: MathOptions,
    extractor: Extractor,
}

impl Math {
    /// A verifier called `name`.
    pub fn new(name: &str, options: &MathOptions) -> Result<Self, VerifierError> {
        if options.decimal_places == 0 {
            return Err(VerifierError::config(
                name,
                "`decimal_places = 0` would round every number to an integer; give 1 or more",
            ));
        }
        let MathExtract { tag, think_tag, .. } = options.extract.clone();
        let extractor = Extractor::new(name, &ExtractOptions { from: AnswerFrom::Tag, tag, think_tag })?;
        Ok(Self { name: name.into(), options: options.clone(), extractor })
    }

    /// The text of the answer in a completion, or why there is none.
    fn locate(&self, completion: &str, from: MathFrom, fuel: &Fuel) -> Result<String, &'static str> {
        let text = self.extractor.after_thoughts(completion)?;
        let boxed = || locate::marked(text).filter(|_| text.contains("\\boxed") || text.contains("\\fbox"));
        let found = match from {
            MathFrom::Boxed => return boxed().ok_or("there is no box"),
            _ if self.extractor.opens_block(text) => {
                let block = self.extractor.only_block(text)?;
                Some(locate::marked(block).unwrap_or_else(|| block.to_string()))
            }
            MathFrom::Marked => locate::marked(text),
            MathFrom::Any => {
                locate::concluded(text, fuel).or_else(|| locate::marked(text)).or_else(|| locate::unmarked(text, fuel))
            }
        };
        found.ok_or("there is no answer")
    }

    /// The answer in a completion: its text and what it says.
    fn read(&self, completion: &str, from: MathFrom, fuel: &Fuel) -> Result<(String, Answer), &'static str> {
        let text = self.locate(completion, from, fuel)?;
        let answer = Answer::read(&text, fuel);
        if answer.is_empty() { Err("there is no answer") } else { Ok((text, answer)) }
    }

    /// The right answers that can be read, any of which will do; one at least.
    fn references(&self, example: &Example, fuel: &Fuel) -> Result<Vec<(String, Answer)>, VerifierError> {
        let (mut read, mut unread) = (Vec::new(), "there is none");
        for right in example.answer.each() {
            match self.read(right, MathFrom::Any, fuel) {
                Ok(reference) => read.push(reference),
                Err(problem) => unread = problem,
            }
        }
        if read.is_empty() {
            let answer = example.answer.as_str();
            let problem = format!("its `answer` {answer:?} cannot be read: {unread}; correct it or drop the row");
            return Err(VerifierError::example(&self.name, example, problem));
        }
        Ok(read)
    }
}

impl Verifier for Math {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self, example: &Example) -> Result<(), VerifierError> {
        self.verify(example, "").map(drop)
    }

    fn verify(&self, example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        let fuel = Fuel::new();
        let references = self.references(example, &fuel)?;
        let (answer, read) = match self.read(completion, self.options.extract.from, &fuel) {
            Err(reason) => return Ok(Verdict::zero(Outcome::Unparsed, reason)),
            Ok(answer) => answer,
        };
        let (fuel, mut missed) = (Fuel::new(), "not equal");
        for (_, reference) in &references {
            match answer::judge(reference, &read, self.options.decimal_places, &fuel) {
                Ok(reason) => return Ok(Verdict::pass(answer, reason)),
                Err(reason) => missed = reason,
            }
        }
        Ok(Verdict::fail(answer, missed))
    }

    fn reference(&self, example: &Example) -> Option<Reference> {
        self.references(example, &Fuel::new()).ok()?.iter().find_map(|(answer, _)| Reference::value(answer))
    }

    /// In a box, which all that [`MathFrom`] allows can read.
    fn lay_out(&self, draft: &str) -> String {
        if draft.contains("\\boxed") { draft.to_owned() } else { format!("\\boxed{{{draft}}}") }
    }
}
