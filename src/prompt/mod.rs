//! Examples to prompts: sources, templates, tokens, and an order that depends on the seed and a count alone.

mod chat;
pub(crate) mod fit;
pub mod jinja;
mod json;
mod messages;
mod python;
mod rendered;
mod source;
mod template;
mod tokens;
mod turns;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use anyhow::{Result, ensure};
use reckon_datasets::{Example, Lane, Order};
use tokenizers::Tokenizer;

pub use rendered::Rendered;
pub use source::{LOOKED_AT, Lengths, Source};
pub use template::Template;
pub use tokens::{EndOfTurn, encode_completion};
pub use turns::Piece;

use crate::config::{SourceView, TrainConfig};
use crate::model::{Companions, ModelConfig};
use crate::policy::Policy;
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
    /// Which row of it.
    pub row: usize,
    /// The start of the completion that stands in `tokens` already: verifiers read it before what was sampled.
    pub prefill: Arc<str>,
}

impl Prompt {
    /// A prompt of the first source, without a prefilled start.
    pub fn new(example: Arc<Example>, index: u64, tokens: Vec<u32>) -> Self {
        Self { example, index, tokens, source: 0, row: 0, prefill: Arc::from("") }
    }
}

impl<'a> From<&'a Prompt> for PromptTokens<'a> {
    fn from(prompt: &'a Prompt) -> Self {
        Self { index: prompt.index, tokens: &prompt.tokens }
    }
}

/// An endless, resumable order of prompts: prompt `i` of a run is a function of the seed and `i`.
pub struct PromptSource {
    /// Those that are trained on, then further held-out sets.
    sources: Vec<Source>,
    /// How many are trained on.
    trained: usize,
    lengths: Vec<Lengths>,
    order: Order,
    held_out: Option<HeldOut>,
    sets: Vec<HeldOut>,
    tokenizer: Tokenizer,
}

/// The order of the held-out rows of the sources that have some.
struct HeldOut {
    sources: Vec<usize>,
    order: Order,
}

/// The tokens that a model has for a prompt and its completion.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// All of them.
    pub max_position: usize,
    /// Those of the longest completion.
    pub max_new_tokens: usize,
}

impl PromptSource {
    /// Opens the data of a run for a model with this tokenizer, these files beside it, and this window. All rows are
    /// counted in tokens: one that does not fit is refused or left out, as the config says.
    pub fn open(
        views: &[SourceView],
        tokenizer: Tokenizer,
        companions: &Companions,
        seed: u64,
        window: Window,
    ) -> Result<Self> {
        let open = |(i, view)| Source::open(view, i, companions, seed)?.fit_to(&tokenizer, window);
        let opened = views.iter().enumerate().map(open).collect::<Result<Vec<_>>>()?;
        let (sources, lengths): (Vec<Source>, Vec<Lengths>) = opened.into_iter().unzip();
        let mut names = HashSet::new();
        for source in &sources {
            ensure!(names.insert(&source.name), "two data sources are called \"{}\": rename one", source.name);
        }
        let train = |s: &Source| Lane { weight: s.weight, len: s.train.len(), shuffled: s.shuffled };
        let order = Order::new(seed, &sources.iter().map(train).collect::<Vec<_>>())?;
        let held_out = HeldOut::of(&sources)?;
        Ok(Self { trained: sources.len(), sources, lengths, order, held_out, sets: Vec::new(), tokenizer })
    }

    /// With further held-out sets, whose sources follow those that are trained on.
    fn with_sets(mut self, views: &[SourceView], companions: &Companions, window: Window) -> Result<Self> {
        for view in views {
            let (source, _) = Source::open_set(view, companions)?.fit_to(&self.tokenizer, window)?;
            let source = source.all_held_out();
            let lane = Lane { weight: 1.0, len: source.held_out.len(), shuffled: false };
            self.sets.push(HeldOut { sources: vec![self.sources.len()], order: Order::new(0, &[lane])? });
            self.sources.push(source);
        }
        Ok(self)
    }

    /// Opens the data of `config` for a policy, whose completions end from now on with what the templates end a turn with.
    pub fn of(config: &TrainConfig, policy: &mut Policy) -> Result<Self> {
        let (window, tokenizer) = (Window::of(config, &policy.config), policy.tokenizer.clone());
        let prompts = Self::open(&config.sources()?, tokenizer, &policy.companions, config.seed, window)?;
        let prompts = prompts.with_sets(&config.eval_sources(), &policy.companions, window)?;
        policy.end_with(prompts.end_tokens())?;
        Ok(prompts)
    }

    /// What makes tokens of prompts.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The sources that are trained on, in the order of the config.
    pub fn sources(&self) -> &[Source] {
        &self.sources[..self.trained]
    }

    /// Rows to train on; `None` where some source is endless.
    pub fn rows(&self) -> Option<usize> {
        self.sources().iter().map(|source| source.shuffled.then(|| source.train.len())).sum()
    }

    /// Prompts `from..from + count` of the run.
    pub fn train(&self, from: u64, count: usize) -> Result<Vec<Prompt>> {
        self.turns(from, count).into_iter().zip(from..).map(|(turn, index)| self.turn(turn, index)).collect()
    }

    /// Source and row of prompts `from..from + count` of the run.
    pub fn turns(&self, from: u64, count: usize) -> Vec<(usize, usize)> {
        self.order.turns(from, count)
    }

    /// A row of a source as prompt `index`.
    pub fn turn(&self, (source, row): (usize, usize), index: u64) -> Result<Prompt> {
        let prompt = self.prompt(source, self.sources[source].train.get(row), index)?;
        Ok(Prompt { row, ..prompt })
    }

    /// The first `count` held-out prompts, or as many as there are.
    ///
    /// # Errors
    /// Some are asked for, and there is none.
    pub fn held_out(&self, count: usize) -> Result<Vec<Prompt>> {
        let Some(held_out) = &self.held_out else {
            ensure!(
                count == 0,
                "no row is held out to evaluate on: raise data.held_out, name a file there, or set eval.problems = 0"
            );
            return Ok(Vec::new());
        };
        self.first_of(held_out, count, HELD_OUT_INDEX)
    }

    /// The first `count` prompts of further held-out set `set`, or as many as there are.
    pub fn set(&self, set: usize, count: usize) -> Result<Vec<Prompt>> {
        self.first_of(&self.sets[set], count, HELD_OUT_INDEX + ((set as u64 + 1) << 32))
    }

    fn first_of(&self, HeldOut { sources, order }: &HeldOut, count: usize, from: u64) -> Result<Vec<Prompt>> {
        let mut seen = HashSet::new();
        let turns = order.turns(0, count).into_iter().filter(|turn| seen.insert(*turn)).zip(from..);
        let prompt = |((lane, row), index): ((usize, usize), u64)| {
            let source = sources[lane];
            self.prompt(source, self.sources[source].held_out.get(row), index)
        };
        turns.map(prompt).collect()
    }

    /// What the rows of each source are, for a resumed run to compare.
    pub fn fingerprints(&self) -> BTreeMap<String, String> {
        self.sources().iter().map(|source| (source.name.clone(), source.fingerprint())).collect()
    }

    /// How long the prompts of each source are.
    pub fn lengths(&self) -> &[Lengths] {
        &self.lengths
    }

    /// Tokens of the longest prompt that is trained on.
    pub fn longest(&self) -> usize {
        self.lengths.iter().flat_map(|lengths| &lengths.train).copied().max().unwrap_or(0)
    }

    /// A line for each source of which rows were left out.
    pub fn dropped(&self) -> Vec<String> {
        let told = |(source, lengths): (&Source, &Lengths)| {
            let (n, all) = (lengths.dropped, lengths.dropped + source.train.len() + source.held_out.len());
            format!("data source \"{}\": {n} of {all} rows are left out, whose prompts are too long", source.name)
        };
        self.sources.iter().zip(&self.lengths).filter(|(_, lengths)| lengths.dropped > 0).map(told).collect()
    }

    /// An example of a source as prompt `index`.
    pub fn prompt(&self, source: usize, example: Example, index: u64) -> Result<Prompt> {
        let template = &self.sources[source].template;
        let rendered = template.render(&example)?;
        let tokens = template.tokens(&self.tokenizer, &example, &rendered)?;
        let prefill = [rendered.opening(), template.prefill()].concat().into();
        Ok(Prompt { source, prefill, ..Prompt::new(Arc::new(template.told(example)), index, tokens) })
    }

    /// The tokens that end the assistant's turn in the templates of the sources.
    pub fn end_tokens(&self) -> Vec<u32> {
        let ends = self.sources.iter().filter_map(|source| source.template.end_of_turn(&self.tokenizer));
        ends.map(|end| end.token).collect()
    }
}

impl Window {
    /// What a run has of it with this model.
    pub fn of(config: &TrainConfig, model: &ModelConfig) -> Self {
        Self { max_position: model.max_position_embeddings, max_new_tokens: config.rollout.max_new_tokens }
    }
}

impl HeldOut {
    /// What is held out is the same, in the same order, for every seed, so that runs can be compared.
    fn of(all: &[Source]) -> Result<Option<Self>> {
        let sources: Vec<usize> = (0..all.len()).filter(|&source| !all[source].held_out.is_empty()).collect();
        let lane = |&source: &usize| {
            let source = &all[source];
            Lane { weight: source.weight, len: source.held_out.len(), shuffled: false }
        };
        let lanes: Vec<Lane> = sources.iter().map(lane).collect();
        let order = || Ok(Self { order: Order::new(0, &lanes)?, sources });
        (!lanes.is_empty()).then(order).transpose()
    }
}

impl Source {
    /// The source without prompts that leave no room for a completion.
    fn fit_to(self, tokenizer: &Tokenizer, window: Window) -> Result<(Self, Lengths)> {
        let Window { max_position, max_new_tokens } = window;
        let limit = format!(
            "the model's context of {max_position} less rollout.max_new_tokens = {max_new_tokens}: shorten them or \
             lower max_new_tokens"
        );
        let length = |template: &Template, example: Example| {
            let rendered = template.render(&example)?;
            Ok(template.tokens(tokenizer, &example, &rendered)?.len())
        };
        self.fit(max_position.saturating_sub(max_new_tokens), &limit, &length)
    }
}

impl Template {
    /// The prompt of an example, the prefilled start included.
    fn tokens(&self, tokenizer: &Tokenizer, example: &Example, rendered: &Rendered) -> Result<Vec<u32>> {
        let tokens = self.encode(tokenizer, &(rendered.text.clone() + self.prefill()))?;
        ensure!(!tokens.is_empty(), "example {} gives an empty prompt", example.id);
        Ok(tokens)
    }
}
