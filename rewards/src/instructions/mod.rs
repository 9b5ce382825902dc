//! The completion follows instructions on its form that a program can check: the 25 of IFEval (Zhou et al. 2023,
//! arXiv:2311.07911), under its names and arguments. What each wants is left to [`instruction`]; the counting of
//! sentences and the telling of languages to files of their own, for there IFEval leans on trained models.

mod instruction;
mod sentences;
mod tongue;

use std::borrow::Cow;

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{AnswerFrom, Credit, ExtractOptions, Extractor, Outcome, Verdict, Verifier, VerifierError};
use instruction::Instruction;

/// Which text must follow an instruction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strictness {
    /// The text as it is.
    #[default]
    Strict,
    /// The text, or what is left of it without its first line, its last, both, or its asterisks: IFEval's loose mode,
    /// which forgives an opening such as `Sure, here it is:`.
    Loose,
}

/// Options of kind `instructions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InstructionsOptions {
    /// Which text must follow an instruction.
    pub strictness: Strictness,
    /// What following only some of them earns.
    pub credit: Credit,
    /// Where the text is.
    pub extract: ExtractOptions,
}

impl Default for InstructionsOptions {
    fn default() -> Self {
        let extract = ExtractOptions { from: AnswerFrom::AfterThoughts, ..ExtractOptions::default() };
        Self { strictness: Strictness::Strict, credit: Credit::All, extract }
    }
}

/// Passes a text that follows every instruction of `info.instruction_id_list`, with its arguments in `info.kwargs`.
///
/// ```
/// use reckon_datasets::Example;
/// use reckon_rewards::{Instructions, InstructionsOptions, Verifier};
/// let verifier = Instructions::new("ifeval", &InstructionsOptions::default())?;
/// let example: Example = serde_json::from_str(r#"{"id": "1", "question": "?", "answer": "", "info": {
///     "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
///     "kwargs": [{}, {"relation": "less than", "num_words": 5}]}}"#)?;
/// assert!(verifier.verify(&example, "<think>Short, then.</think>Four words without commas")?.passed());
/// let verdict = verifier.verify(&example, "Well, no.")?;
/// assert_eq!(verdict.reason, "does not follow punctuation:no_comma");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Instructions {
    name: String,
    options: InstructionsOptions,
    extractor: Extractor,
}

impl Instructions {
    /// A verifier called `name`.
    pub fn new(name: &str, options: &InstructionsOptions) -> Result<Self, VerifierError> {
        let extractor = Extractor::new(name, &options.extract)?;
        Ok(Self { name: name.into(), options: options.clone(), extractor })
    }

    /// The instructions of an example, each under its id.
    fn instructions<'a>(&self, example: &'a Example) -> Result<Vec<(&'a str, Instruction)>, VerifierError> {
        let broken = |problem: String| VerifierError::example(&self.name, example, problem);
        let list = |key: &str| {
            let list = example.info.get(key).and_then(Value::as_array).filter(|list| !list.is_empty());
            list.ok_or_else(|| broken(format!("`info.{key}` is not a list of at least one")))
        };
        let (ids, kwargs) = (list("instruction_id_list")?, list("kwargs")?);
        if ids.len() != kwargs.len() {
            let problem = format!("it has {} instructions and {} `info.kwargs`", ids.len(), kwargs.len());
            return Err(broken(problem));
        }
        let read = |(id, kwargs): (&'a Value, &Value)| {
            let id = id.as_str().ok_or_else(|| broken(format!("instruction id {id} is not a text")))?;
            let none = Map::new();
            let kwargs = kwargs.as_object().unwrap_or(&none);
            let instruction = Instruction::read(id, kwargs);
            Ok((id, instruction.map_err(|problem| broken(format!("instruction `{id}`: {problem}")))?))
        };
        ids.iter().zip(kwargs).map(read).collect()
    }

    /// The texts of which one must follow an instruction.
    fn texts<'a>(&self, text: &'a str) -> Vec<Cow<'a, str>> {
        if self.options.strictness == Strictness::Strict {
            return vec![text.into()];
        }
        let without_first = text.split_once('\n').map_or("", |(_, rest)| rest);
        let without_last = text.rsplit_once('\n').map_or("", |(rest, _)| rest);
        let without_both = without_first.rsplit_once('\n').map_or("", |(rest, _)| rest);
        let cut = [text, without_first.trim(), without_last.trim(), without_both.trim()];
        cut.iter().flat_map(|text| [Cow::Borrowed(*text), text.replace('*', "").into()]).collect()
    }
}

impl Verifier for Instructions {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self, example: &Example) -> Result<(), VerifierError> {
        self.verify(example, "").map(drop)
    }

    fn verify(&self, example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        let instructions = self.instructions(example)?;
        Ok(self.extractor.judge(completion, |text| {
            let texts = self.texts(text);
            let follows = |instruction: &Instruction| {
                texts.iter().any(|text| !text.trim().is_empty() && instruction.followed_by(text))
            };
            let broken: Vec<&str> = instructions.iter().filter(|(_, i)| !follows(i)).map(|(id, _)| *id).collect();
            if broken.is_empty() {
                return Verdict::pass(text, "follows all instructions");
            }
            let mut verdict = Verdict::zero(Outcome::Fail, format!("does not follow {}", broken.join(", ")));
            if self.options.credit == Credit::Share {
                verdict.reward = 1.0 - broken.len() as f32 / instructions.len() as f32;
            }
            verdict
        }))
    }

    fn lay_out(&self, draft: &str) -> String {
        self.extractor.lay_out(draft)
    }
}
