//! Examples to prompts: sources, templates, tokens, and an order that depends on the seed and a count alone.

mod chat;
pub mod jinja;
mod json;
mod messages;
mod python;
mod rendered;
mod source;
mod template;
mod tokens;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use anyhow::{Result, ensure};
use reckon_datasets::{Example, Lane, Order};
use tokenizers::Tokenizer;

pub use rendered::Rendered;
pub use source::Source;
pub use template::Template;
pub use tokens::{EndOfTurn, encode_completion};

use crate::config::SourceView;
use crate::model::Companions;
use crate::rollout::PromptTokens;

/// Held-out prompts are numbered from here, so that their random numbers are not those of training prompts.
const HELD_OUT_INDEX: u64 = 1 << 40;

/// An example as the model sees it.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Where it came from; the verifiers judge against it.
    pub example: Arc<Example>,
    /// Position in the run's order of prompts: names the prompt's stream of random numbers.
    pub index: u64,
    /// The tokens, never empty.
    pub tokens: Vec<u32>,
    /// Which source of the run's data it comes from, which names its rubric.
    pub source: usize,
    /// The start of the completion that stands in `tokens` already: verifiers read it before what was sampled.
    pub prefill: Arc<str>,
}

impl Prompt {
    /// A prompt of the first source, without a prefilled start.
    pub fn new(example: Arc<Example>, index: u64, tokens: Vec<u32>) -> Self {
        Self { example, index, tokens, source: 0, prefill: Arc::from("") }
    }
}

impl<'a> From<&'a Prompt> for PromptTokens<'a> {
    fn from(prompt: &'a Prompt) -> Self {
        Self { index: prompt.index, tokens: &prompt.tokens }
    }
}

/// An endless, resumable order of prompts: prompt `i` of a run is a function of the seed and `i`.
pub struct PromptSource {
    sources: Vec<Source>,
    order: Order,
    held_out: Order,
    tokenizer: Tokenizer,
}

impl PromptSource {
    /// Opens the data of a run for a model with this tokenizer and these files beside it.
    pub fn open(views: &[SourceView], tokenizer: Tokenizer, companions: &Companions, seed: u64) -> Result<Self> {
        let open = |(i, view)| Source::open(view, i, companions, seed);
        let sources: Vec<Source> = views.iter().enumerate().map(open).collect::<Result<_>>()?;
        let mut names = HashSet::new();
        for source in &sources {
            ensure!(names.insert(&source.name), "two data sources are called \"{}\": rename one", source.name);
        }
        let lanes = |held_out: bool| -> Vec<Lane> {
            let lane = |s: &Source| {
                if held_out {
                    Lane { weight: s.weight, len: s.held_out.len(), shuffled: false }
                } else {
                    Lane { weight: s.weight, len: s.train.len(), shuffled: s.shuffled }
                }
            };
            sources.iter().map(lane).collect()
        };
        // What is held out is the same, in the same order, for every seed, so that runs can be compared.
        let (order, held_out) = (Order::new(seed, &lanes(false))?, Order::new(0, &lanes(true))?);
        Ok(Self { sources, order, held_out, tokenizer })
    }

    /// The sources, in the order of the config.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Prompts `from..from + count` of the run.
    pub fn train(&self, from: u64, count: usize) -> Result<Vec<Prompt>> {
        let turns = self.order.turns(from, count).into_iter().zip(from..);
        turns.map(|((source, row), index)| self.prompt(source, self.sources[source].train.get(row), index)).collect()
    }

    /// The first `count` held-out prompts, or as many as there are.
    pub fn held_out(&self, count: usize) -> Result<Vec<Prompt>> {
        let mut seen = HashSet::new();
        let turns = self.held_out.turns(0, count).into_iter().filter(|turn| seen.insert(*turn)).zip(HELD_OUT_INDEX..);
        turns.map(|((source, row), index)| self.prompt(source, self.sources[source].held_out.get(row), index)).collect()
    }

    /// What the rows of each source are, for a resumed run to compare.
    pub fn fingerprints(&self) -> BTreeMap<String, String> {
        self.sources.iter().map(|source| (source.name.clone(), source.fingerprint())).collect()
    }

    /// Refuses to go on with other data than a run began with.
    pub fn check_fingerprints(&self, began: &BTreeMap<String, String>) -> Result<()> {
        for (name, now) in self.fingerprints() {
            let before = began.get(&name).map_or("none", String::as_str);
            ensure!(
                before == now,
                "the rows of data source \"{name}\" are not those the run began with (fingerprint {now}, was {before}): \
                 put the files back as they were, or start a new run"
            );
        }
        Ok(())
    }

    /// Refuses a run whose prompts do not fit: counts rows (at most 1,000 of them) longer than `room` tokens.
    pub fn check_lengths(&self, max_position: usize, max_new_tokens: usize) -> Result<()> {
        let room = max_position.saturating_sub(max_new_tokens);
        let prompts = self.first()?;
        let long: Vec<&Prompt> = prompts.iter().filter(|p| p.tokens.len() > room).collect();
        ensure!(
            long.is_empty(),
            "{} of {} prompts are longer than {room} tokens, the model's context of {max_position} less \
             rollout.max_new_tokens = {max_new_tokens} (the first is {}, with {}): shorten them or lower max_new_tokens",
            long.len(),
            prompts.len(),
            long[0].example.id,
            long[0].tokens.len()
        );
        Ok(())
    }

    /// Tokens of the longest prompt among the first 1,000.
    pub fn longest(&self) -> Result<usize> {
        Ok(self.first()?.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0))
    }

    /// The prompts that are looked at before the run: the first 1,000, or one for each row where there are fewer.
    fn first(&self) -> Result<Vec<Prompt>> {
        self.train(0, self.sources.iter().map(|source| source.train.len()).sum::<usize>().min(1000))
    }

    /// An example of a source as prompt `index`.
    pub fn prompt(&self, source: usize, example: Example, index: u64) -> Result<Prompt> {
        let template = &self.sources[source].template;
        let rendered = template.render(&example)?;
        let tokens = template.encode(&self.tokenizer, &(rendered.text.clone() + template.prefill()))?;
        ensure!(!tokens.is_empty(), "example {} gives an empty prompt", example.id);
        let prefill = [rendered.opening(), template.prefill()].concat().into();
        Ok(Prompt { source, prefill, ..Prompt::new(Arc::new(example), index, tokens) })
    }

    /// The tokens that end the assistant's turn in the templates of the sources.
    pub fn end_tokens(&self) -> Vec<u32> {
        let ends = self.sources.iter().filter_map(|source| source.template.end_of_turn(&self.tokenizer));
        ends.map(|end| end.token).collect()
    }
}
