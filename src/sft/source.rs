//! Prompts and completions to learn from, without end: traces made for generated problems, or rows of files. What a step
//! does with them is left to [`SftTrainer`](super::SftTrainer).

use anyhow::{Result, bail, ensure};
use reckon_datasets::{
    Dataset, Example, FileRows, Generated, Lane, Order, Purpose, Split, TraceSource, Traced, Traces,
};
use tokenizers::Tokenizer;

use super::SftSample;
use crate::config::{DataConfig, Learn, SftConfig};
use crate::hub;
use crate::model::ModelFolder;
use crate::prompt::fit::{Fitted, Room};
use crate::prompt::{EndOfTurn, Template, encode_completion};

/// The samples of a run, a batch at a time.
pub struct SftSource {
    source: Source,
    encoder: Encoder,
    tokens_per_step: usize,
    /// Completions used so far.
    pub used: usize,
}

/// From an example and its completion to tokens.
struct Encoder {
    template: Template,
    tokenizer: Tokenizer,
    /// Ends each completion.
    end: End,
    learn: Learn,
    /// Tokens of the longest sample that the model can read.
    context: usize,
}

/// What a completion is taught to end with.
enum End {
    /// What the template writes behind the assistant's words.
    Turn(EndOfTurn),
    /// The model's own end of a text, where the template has none.
    Text(Option<u32>),
}

enum Source {
    /// Made for generated problems.
    Traces(Box<dyn TraceSource>),
    /// Read from files, in another order in each pass.
    Files { rows: Box<dyn Dataset>, order: Order, dropped: usize },
}

impl SftSource {
    /// The samples that `config` asks for, in the tokens of the model in `folder`. All rows of files are counted: one
    /// that is longer than the model's context is refused or left out, as the config says.
    pub fn open(config: &SftConfig, folder: &ModelFolder) -> Result<Self> {
        let template = Template::new(&config.prompt, &folder.companions)?;
        let end = match template.end_of_turn(&folder.tokenizer) {
            Some(end) => End::Turn(end),
            None => End::Text(folder.config.eos_token_id.first().copied()),
        };
        let encoder = Encoder {
            template,
            tokenizer: folder.tokenizer.clone(),
            end,
            learn: config.learn,
            context: folder.config.max_position_embeddings,
        };
        let source = Source::open(config, &encoder)?;
        Ok(Self { source, encoder, tokens_per_step: config.tokens_per_step, used: 0 })
    }

    /// Rows that were left out because they are longer than the model's context.
    pub fn dropped(&self) -> usize {
        match &self.source {
            Source::Traces(_) => 0,
            Source::Files { dropped, .. } => *dropped,
        }
    }

    /// The token that ends the assistant's turn, where the template has one: the model learns to stop at it.
    pub fn end_token(&self) -> Option<u32> {
        match &self.encoder.end {
            End::Turn(end) => Some(end.token),
            End::Text(_) => None,
        }
    }

    /// The samples of the next step: the fewest that have `tokens_per_step` tokens.
    pub fn batch(&mut self) -> Result<Vec<SftSample>> {
        let (mut batch, mut tokens) = (Vec::new(), 0);
        while tokens < self.tokens_per_step {
            let (example, completion) = self.source.get(self.used);
            let sample = self.encoder.encode(&example, &completion)?;
            let (length, context) = (sample.tokens.len(), self.encoder.context);
            ensure!(
                length <= context,
                "{} has {length} tokens, more than the model's context of {context}",
                example.id
            );
            tokens += sample.tokens.len();
            batch.push(sample);
            self.used += 1;
        }
        Ok(batch)
    }
}

impl Encoder {
    fn encode(&self, example: &Example, completion: &str) -> Result<SftSample> {
        let rendered = self.template.render(example)?;
        let mut tokens = self.template.encode(&self.tokenizer, rendered.before(completion))?;
        let trained_from = if self.learn == Learn::All { 1 } else { tokens.len() };
        match &self.end {
            End::Turn(end) => tokens.extend(encode_completion(&self.tokenizer, &(completion.to_owned() + &end.text))?),
            End::Text(end) => {
                tokens.extend(encode_completion(&self.tokenizer, completion)?);
                tokens.extend(end);
            }
        }
        Ok(SftSample { tokens, trained_from })
    }
}

impl Source {
    fn open(config: &SftConfig, encoder: &Encoder) -> Result<Self> {
        match &config.data {
            DataConfig::Countdown { problems } => Self::traces(problems, config),
            DataConfig::ThreeSum { problems } => Self::traces(problems, config),
            DataConfig::Parity { problems } => Self::traces(problems, config),
            DataConfig::File(file) => {
                let paths = hub::data_files(file.path.all())?;
                let rows = FileRows::open(&paths, &file.columns, Purpose::Completion)?.only(&file.only)?;
                let limit = "the model's context: shorten them";
                let room = Room { tokens: encoder.context, long: file.long_prompts, what: "samples", limit };
                let length = |example: Example| Ok(encoder.encode(&example, &example.answer)?.tokens.len());
                let Fitted { rows, dropped, .. } = room.fit(Box::new(rows), usize::MAX, &length)?;
                ensure!(!rows.is_empty(), "all {dropped} samples are longer than {} tokens, {limit}", encoder.context);
                let order = Order::new(config.seed, &[Lane { weight: 1.0, len: rows.len(), shuffled: true }])?;
                Ok(Self::Files { rows, order, dropped })
            }
            _ => bail!(
                "data.dataset: supervised training reads completions from \"file\" or makes traces of \"countdown\", \
                 \"three_sum\" or \"parity\""
            ),
        }
    }

    fn traces<T: Traced + Clone + 'static>(task: &T, config: &SftConfig) -> Result<Self> {
        let problems = Generated::new(task.clone(), config.seed, Split::Train)?;
        Ok(Self::Traces(Box::new(Traces::new(problems, config.traces.clone(), config.seed)?)))
    }

    /// Example and completion of turn `index`.
    fn get(&self, index: usize) -> (Example, String) {
        match self {
            Self::Traces(traces) => {
                let trace = traces.get(index);
                (trace.example, trace.completion)
            }
            Self::Files { rows, order, .. } => {
                let row = order.turns(index as u64, 1).first().map_or(0, |&(_, row)| row);
                let example = rows.get(row);
                let completion = example.answer.to_string();
                (example, completion)
            }
        }
    }
}
