//! Examples to prompts: the template, the tokens, and an order that depends on the seed and a count alone.

use std::sync::Arc;

use anyhow::{Result, ensure};
use reckon_datasets::{Columns, Countdown, Counted, Dataset, JsonLines, Split};
use tokenizers::Tokenizer;

use crate::config::DataConfig;
use crate::rollout::Prompt;

/// Held-out prompts are numbered from here, so that their random numbers are not those of training prompts.
const HELD_OUT_INDEX: u64 = 1 << 40;

/// How many generated problems make one pass. Larger than any run.
pub const GENERATED: usize = 1 << 30;

/// The rows to train on, the held-out rows, and whether the former are to be shuffled.
pub type Datasets = (Box<dyn Dataset>, Box<dyn Dataset>, bool);

/// Opens the data of a run. Files are read; generated problems are made when asked for.
pub fn datasets(data: &DataConfig, seed: u64) -> Result<Datasets> {
    Ok(match data {
        DataConfig::Countdown { problems, .. } => (
            Box::new(Countdown::new(problems.clone(), seed, Split::Train)?.with_len(GENERATED)),
            // The same held-out problems for every seed, so that runs can be compared.
            Box::new(Countdown::new(problems.clone(), 0, Split::HeldOut)?.with_len(GENERATED)),
            false,
        ),
        DataConfig::Jsonl { path, held_out, question, answer, .. } => {
            let columns = Columns { question: question.clone(), answer: answer.clone(), ..Columns::default() };
            let held_out = held_out.as_ref().unwrap_or(path);
            (Box::new(JsonLines::open(path, &columns)?), Box::new(JsonLines::open(held_out, &columns)?), true)
        }
    })
}

/// An endless, resumable order of prompts: prompt `i` of a run is a function of the seed and `i`.
pub struct PromptSource {
    train: Box<dyn Dataset>,
    held_out: Box<dyn Dataset>,
    data: DataConfig,
    tokenizer: Tokenizer,
    seed: u64,
    shuffled: bool,
}

impl PromptSource {
    /// Opens the data of a run as [`datasets`] does.
    pub fn open(data: &DataConfig, tokenizer: Tokenizer, seed: u64) -> Result<Self> {
        let (train, held_out, shuffled) = datasets(data, seed)?;
        let data = data.clone();
        Ok(Self { train, held_out, data, tokenizer, seed, shuffled })
    }

    /// Prompts `from..from + count` of the run.
    pub fn train(&self, from: u64, count: usize) -> Result<Vec<Prompt>> {
        let len = self.train.len();
        let mut order: Option<(u64, Vec<usize>)> = None;
        (from..from + count as u64)
            .map(|index| {
                let (pass, at) = (index / len as u64, (index % len as u64) as usize);
                if !self.shuffled {
                    return self.prompt(self.train.get(at), index);
                }
                if order.as_ref().is_none_or(|(p, _)| *p != pass) {
                    let mut rows: Vec<usize> = (0..len).collect();
                    Counted::new(&[self.seed, 0x0de7, pass]).shuffle(&mut rows);
                    order = Some((pass, rows));
                }
                let row = order.as_ref().map_or(at, |(_, rows)| rows[at]);
                self.prompt(self.train.get(row), index)
            })
            .collect()
    }

    /// The first `count` held-out prompts, or as many as there are.
    pub fn held_out(&self, count: usize) -> Result<Vec<Prompt>> {
        let count = count.min(self.held_out.len());
        (0..count).map(|i| self.prompt(self.held_out.get(i), HELD_OUT_INDEX + i as u64)).collect()
    }

    /// Refuses a run whose prompts do not fit: counts rows (at most 1,000 of them) longer than `room` tokens.
    pub fn check_lengths(&self, max_position: usize, max_new_tokens: usize) -> Result<()> {
        let room = max_position.saturating_sub(max_new_tokens);
        let rows = self.train.len().min(1000);
        let prompts = self.train(0, rows)?;
        let long: Vec<&Prompt> = prompts.iter().filter(|p| p.tokens.len() > room).collect();
        ensure!(
            long.is_empty(),
            "{} of {rows} prompts are longer than {room} tokens, the model's context of {max_position} less \
             rollout.max_new_tokens = {max_new_tokens} (the first is {}, with {}): shorten them or lower max_new_tokens",
            long.len(),
            long[0].example.id,
            long[0].tokens.len()
        );
        Ok(())
    }

    fn prompt(&self, example: reckon_datasets::Example, index: u64) -> Result<Prompt> {
        let text = self.data.prompt(&example.question);
        let tokens = encode(&self.tokenizer, &text)?;
        ensure!(!tokens.is_empty(), "example {} gives an empty prompt", example.id);
        Ok(Prompt::new(Arc::new(example), index, tokens))
    }
}

/// Text to tokens, nothing added.
pub fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let encoding = tokenizer.encode(text, false).map_err(|e| anyhow::anyhow!("cannot tokenize \"{text}\": {e}"))?;
    Ok(encoding.get_ids().to_vec())
}
