//! Finds the answer in a completion. Leaves what the answer means to the verifiers.

use serde::{Deserialize, Serialize};

use crate::{Outcome, Verdict, VerifierError};

/// Where the answer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerFrom {
    /// The one answer block after the last closed think block.
    #[default]
    Tag,
    /// The last line that is not blank, after the last closed think block.
    LastLine,
    /// Everything after the last closed think block.
    AfterThoughts,
    /// The whole completion, thoughts included.
    Whole,
}

/// The `extract` table of a verifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExtractOptions {
    /// Where the answer is.
    pub from: AnswerFrom,
    /// Name of the answer's tag.
    pub tag: String,
    /// Name of the thoughts' tag.
    pub think_tag: String,
}

impl Default for ExtractOptions {
    fn default() -> Self {
        Self { from: AnswerFrom::Tag, tag: "answer".into(), think_tag: "think".into() }
    }
}

/// Cuts the answer out of a completion.
///
/// ```
/// use reckon_rewards::{ExtractOptions, Extractor};
/// let extractor = Extractor::new("sum", &ExtractOptions::default())?;
/// assert_eq!(extractor.answer("<think>is <answer>3</answer>?</think><answer> 4 </answer>"), Ok("4"));
/// assert!(extractor.answer("<answer>3</answer><answer>4</answer>").is_err());
/// # Ok::<(), reckon_rewards::VerifierError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Extractor {
    from: AnswerFrom,
    answer: Tag,
    think: Tag,
}

impl Extractor {
    /// An extractor for the verifier called `verifier`.
    pub fn new(verifier: &str, options: &ExtractOptions) -> Result<Self, VerifierError> {
        if options.tag == options.think_tag {
            let problem = format!("`extract.tag` and `extract.think_tag` are both `{}`; rename one", options.tag);
            return Err(VerifierError::config(verifier, problem));
        }
        let tag = |name: &str| Tag::new(name).map_err(|problem| VerifierError::config(verifier, problem));
        Ok(Self { from: options.from, answer: tag(&options.tag)?, think: tag(&options.think_tag)? })
    }

    /// The trimmed answer (untrimmed when taken whole), or why there is none.
    pub fn answer<'a>(&self, completion: &'a str) -> Result<&'a str, &'static str> {
        match self.from {
            AnswerFrom::Whole => Ok(completion),
            AnswerFrom::AfterThoughts => self.after_thoughts(completion).map(str::trim),
            AnswerFrom::LastLine => {
                let line = self.after_thoughts(completion)?.trim_end().lines().next_back();
                line.map(str::trim).filter(|line| !line.is_empty()).ok_or("there is no line after the thoughts")
            }
            AnswerFrom::Tag => self.only_block(self.after_thoughts(completion)?),
        }
    }

    /// `draft` in an answer block, where it is read from one and holds none.
    pub fn lay_out(&self, draft: &str) -> String {
        let Tag { open, close } = &self.answer;
        match self.from {
            AnswerFrom::Tag if !draft.contains(open) => format!("{open}{draft}{close}"),
            _ => draft.to_owned(),
        }
    }

    /// The verdict of `rule` on the answer; without one, the verdict that says why.
    pub(crate) fn judge(&self, completion: &str, rule: impl FnOnce(&str) -> Verdict) -> Verdict {
        self.answer(completion).map_or_else(|reason| Verdict::zero(Outcome::Unparsed, reason), rule)
    }

    /// What follows the last closed think block. Text inside an unclosed one is thought, not answer.
    pub(crate) fn after_thoughts<'a>(&self, completion: &'a str) -> Result<&'a str, &'static str> {
        let rest =
            completion.rfind(&self.think.close).map_or(completion, |at| &completion[at + self.think.close.len()..]);
        if rest.contains(&self.think.open) { Err("a think block is not closed") } else { Ok(rest) }
    }

    /// Whether an answer block starts in `text`.
    pub(crate) fn opens_block(&self, text: &str) -> bool {
        text.contains(&self.answer.open)
    }

    /// The content of the one answer block of `text`.
    pub(crate) fn only_block<'a>(&self, text: &'a str) -> Result<&'a str, &'static str> {
        let (before, rest) = text.split_once(&self.answer.open).ok_or("there is no answer block")?;
        let (answer, after) = rest.split_once(&self.answer.close).ok_or("the answer block is not closed")?;
        if before.contains(&self.answer.close) || after.contains(&self.answer.close) {
            return Err("an answer block is closed without being open");
        }
        if answer.contains(&self.answer.open) || after.contains(&self.answer.open) {
            return Err("there is more than one answer block");
        }
        Ok(answer.trim())
    }
}

/// `<name>` and `</name>`.
#[derive(Debug, Clone)]
pub(crate) struct Tag {
    pub(crate) open: String,
    pub(crate) close: String,
}

impl Tag {
    pub(crate) fn new(name: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(format!("tag name `{name}` must be ASCII letters, digits, `_` or `-`, without `<` and `>`"));
        }
        Ok(Self { open: format!("<{name}>"), close: format!("</{name}>") })
    }
}
