//! The completion has the tags it was asked for: a state machine over tags, no regular expression, because `.*` and
//! `$` let trailing junk and repeated blocks pass. Leaves what the blocks say to other verifiers.

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};

use crate::extract::Tag;
use crate::{Outcome, Verdict, Verifier, VerifierError};

/// Options of kind `format`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FormatOptions {
    /// Names of the blocks, in order.
    pub tags: Vec<String>,
    /// The prompt ends with the first opening tag, so a completion that does not begin with it starts inside that block.
    pub prefilled: bool,
    /// Names of the blocks that may hold nothing but white space.
    pub may_be_empty: Vec<String>,
    /// Text may stand before the first block.
    pub text_before: bool,
    /// Text may stand between blocks.
    pub text_between: bool,
    /// Text may stand after the last block.
    pub text_after: bool,
}

impl Default for FormatOptions {
    fn default() -> Self {
        Self {
            tags: vec!["think".into(), "answer".into()],
            prefilled: false,
            may_be_empty: Vec::new(),
            text_before: false,
            text_between: false,
            text_after: false,
        }
    }
}

/// Passes a completion with exactly one of each block, in order, closed, and not nested.
///
/// ```
/// use reckon_datasets::Example;
/// use reckon_rewards::{Format, FormatOptions, Verifier};
/// let verifier = Format::new("format", &FormatOptions::default())?;
/// let example = Example { id: "1".into(), question: "?".into(), answer: "4".into(), ..Example::default() };
/// assert!(verifier.verify(&example, "<think>2 + 2</think>\n<answer>4</answer>\n")?.passed());
/// let verdict = verifier.verify(&example, "<think>2 + 2</think><answer>4</answer> Done.")?;
/// assert_eq!(verdict.reason, "text after the last block");
/// # Ok::<(), reckon_rewards::VerifierError>(())
/// ```
#[derive(Debug)]
pub struct Format {
    name: String,
    options: FormatOptions,
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    tag: Tag,
    may_be_empty: bool,
}

impl Format {
    /// A verifier called `name`.
    pub fn new(name: &str, options: &FormatOptions) -> Result<Self, VerifierError> {
        let fault = |problem: String| VerifierError::config(name, problem);
        if options.tags.is_empty() {
            return Err(fault("`tags` is empty; name at least one block".into()));
        }
        if let Some(stray) = options.may_be_empty.iter().find(|tag| !options.tags.contains(tag)) {
            return Err(fault(format!("`may_be_empty` names `{stray}`, which is not in `tags`")));
        }
        let mut blocks = Vec::new();
        for (index, tag) in options.tags.iter().enumerate() {
            if options.tags[..index].contains(tag) {
                return Err(fault(format!("`tags` names `{tag}` twice; each block stands once")));
            }
            let may_be_empty = options.may_be_empty.contains(tag);
            blocks.push(Block { tag: Tag::new(tag).map_err(fault)?, may_be_empty });
        }
        Ok(Self { name: name.into(), options: options.clone(), blocks })
    }

    /// Walks the tags: `done` blocks are closed, and `inside` tells whether the next one is open.
    fn check(&self, completion: &str) -> Result<(), String> {
        // A completion that is judged with the start of it that stands in the prompt has the tag itself.
        let begins = completion.trim_start().starts_with(&self.blocks[0].tag.open);
        let (mut done, mut inside) = (0, self.options.prefilled && !begins);
        let mut text_start = 0;
        for (at, found) in self.tags(completion) {
            let text = &completion[text_start..at];
            let (block, closing) = found;
            let tag = &self.blocks[block].tag;
            match (inside, closing) {
                (false, false) if block == done => self.check_outside(text, done)?,
                (true, true) if block == done => self.check_inside(text, done)?,
                (true, false) => return Err(format!("{} inside a block", tag.open)),
                (false, false) if block < done => return Err(format!("a second {}", tag.open)),
                (false, false) => return Err(format!("{} before {}", tag.open, self.blocks[done].tag.open)),
                (_, true) => return Err(format!("{} closes nothing", tag.close)),
            }
            done += usize::from(closing);
            inside = !closing;
            text_start = at + if closing { tag.close.len() } else { tag.open.len() };
        }
        if let Some(block) = self.blocks.get(done) {
            return Err(format!("{} is missing", if inside { &block.tag.close } else { &block.tag.open }));
        }
        self.check_outside(&completion[text_start..], done)
    }

    /// The configured tags in `text`: where each starts, its block, and whether it closes.
    fn tags<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (usize, (usize, bool))> + 'a {
        text.match_indices('<').filter_map(|(at, _)| {
            let here = &text[at..];
            let found = self.blocks.iter().enumerate().find_map(|(index, block)| {
                let closes = here.starts_with(&block.tag.close);
                (closes || here.starts_with(&block.tag.open)).then_some((index, closes))
            });
            found.map(|found| (at, found))
        })
    }

    fn check_outside(&self, text: &str, done: usize) -> Result<(), String> {
        let (allowed, place) = match done {
            0 => (self.options.text_before, "before the first block"),
            _ if done == self.blocks.len() => (self.options.text_after, "after the last block"),
            _ => (self.options.text_between, "between blocks"),
        };
        if allowed || text.trim().is_empty() { Ok(()) } else { Err(format!("text {place}")) }
    }

    fn check_inside(&self, text: &str, done: usize) -> Result<(), String> {
        let block = &self.blocks[done];
        if block.may_be_empty || !text.trim().is_empty() { Ok(()) } else { Err(format!("{} is empty", block.tag.open)) }
    }
}

impl Verifier for Format {
    fn name(&self) -> &str {
        &self.name
    }

    fn verify(&self, _example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        Ok(match self.check(completion) {
            Ok(()) => Verdict { reward: 1.0, outcome: Outcome::Pass, parsed: None, reason: "well formed".into() },
            Err(reason) => Verdict::zero(Outcome::Fail, reason),
        })
    }

    /// Blocks that `draft` does not bring are put around it: the last one holds it, the others hold a word.
    fn lay_out(&self, draft: &str) -> String {
        let Some((last, before)) = self.blocks.split_last() else { return draft.to_owned() };
        let filled = |text: &str, tag: &Tag| format!("{}{text}{}\n", tag.open, tag.close);
        let lacks = |tag: &&Tag| !draft.contains(&tag.open);
        let mut laid_out: String = before.iter().map(|b| &b.tag).filter(lacks).map(|tag| filled("so", tag)).collect();
        laid_out += &if lacks(&&last.tag) { filled(draft, &last.tag) } else { draft.to_owned() };
        let prefilled = &self.blocks[0].tag.open;
        let start = laid_out.strip_prefix(prefilled).filter(|_| self.options.prefilled);
        start.unwrap_or(&laid_out).trim_end().to_owned()
    }
}
