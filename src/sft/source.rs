//! The samples of a supervised run, a step at a time: traces made for generated problems, rows of files, or a mixture of
//! these. Which row comes when is a function of the seed and a count, so that the count is all a resumed run has to know.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use reckon_datasets::{
    BLOCK, Dataset, Example, FileRows, Generated, Lane, Order, Purpose, Split, TraceSource, Traced, Traces,
};

use super::SftSample;
use super::encode::Encoder;
use crate::config::{DataConfig, FileConfig, HeldOut, Length, LongPrompts, PromptConfig, SftConfig, StepSize};
use crate::hub;
use crate::model::ModelFolder;
use crate::prompt::fit::{Fitted, Room};

/// Where the samples of a run come from.
pub struct SftSource {
    sources: Vec<Source>,
    order: Order,
    /// The turns of the order that were asked for last, from the first of them on.
    turns: (u64, Vec<(usize, usize)>),
    step_size: StepSize,
    longest: usize,
    /// Rows of the whole run, where it is a number of passes.
    rows: Option<u64>,
    /// Rows used so far.
    pub used: u64,
}

/// One of the sources that are mixed.
struct Source {
    name: String,
    rows: Rows,
    encoder: Encoder,
    /// Tokens of each row to train on, where they are counted.
    lengths: Vec<usize>,
    dropped: usize,
}

enum Rows {
    /// Made for generated problems; held out where they are asked for.
    Traces { train: Box<dyn TraceSource>, held_out: Option<Box<dyn TraceSource>> },
    /// Read from files, in another order in each pass.
    Files { train: Box<dyn Dataset>, held_out: Box<dyn Dataset> },
}

/// What a source is made of.
struct Asked<'a> {
    name: String,
    weight: f64,
    data: &'a DataConfig,
    prompt: &'a PromptConfig,
}

impl SftSource {
    /// The samples that `config` asks for, in the tokens of the model in `folder`. All rows of files are counted: one
    /// that is too long is refused, left out or cut, as the config says.
    pub fn open<W>(config: &SftConfig, folder: &ModelFolder<W>) -> Result<Self> {
        let context = folder.config.max_position_embeddings;
        let longest = config.max_tokens.unwrap_or(context);
        ensure!(longest <= context, "max_tokens = {longest} is more than the model's context of {context}");
        let asked = asked(config)?;
        let open = |asked: &Asked| Source::open(asked, config, longest, folder);
        let sources = asked.iter().map(open).collect::<Result<Vec<_>>>()?;
        let lane = |(asked, source): (&Asked, &Source)| source.lane(asked.weight);
        let order = Order::new(config.seed, &asked.iter().zip(&sources).map(lane).collect::<Vec<_>>())?;
        let rows = match config.length()? {
            Length::Steps(_) => None,
            Length::Epochs(epochs) => Some(epochs * rows(&sources)?),
        };
        let step_size = config.step_size()?;
        Ok(Self { sources, order, turns: (0, Vec::new()), step_size, longest, rows, used: 0 })
    }

    /// Steps of the run: those that the config gives, or as many as its passes take.
    pub fn steps(&self, config: &SftConfig) -> Result<u64> {
        let rows = match (config.length()?, self.rows) {
            (Length::Steps(steps), _) => return Ok(steps),
            (_, rows) => rows.unwrap_or(0),
        };
        let tokens = match self.step_size {
            StepSize::Samples(samples) => return Ok(rows.div_ceil(samples as u64)),
            StepSize::Tokens(tokens) => tokens,
        };
        let (mut steps, mut sum) = (0, 0);
        for from in (0..rows).step_by(BLOCK) {
            for (source, row) in self.order.turns(from, BLOCK.min((rows - from) as usize)) {
                sum += self.sources[source].lengths[row].min(self.longest);
                if sum >= tokens {
                    (steps, sum) = (steps + 1, 0);
                }
            }
        }
        Ok(steps + u64::from(sum > 0))
    }

    /// A line for each source of which rows were left out or are cut.
    pub fn remarks(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for Source { name, lengths, dropped, .. } in &self.sources {
            if *dropped > 0 {
                let longest = self.longest;
                lines.push(format!("{name}: {dropped} rows are left out, which are longer than {longest} tokens"));
            }
            let cut = lengths.iter().filter(|&&length| length > self.longest);
            let (rows, lost) = cut.fold((0, 0), |(rows, lost), length| (rows + 1, lost + length - self.longest));
            if rows > 0 {
                let all: usize = lengths.iter().sum();
                let longest = self.longest;
                lines.push(format!("{name}: {rows} rows are cut at {longest} tokens and lose {lost} of {all} tokens"));
            }
        }
        lines
    }

    /// The tokens that end the assistant's turn in the templates of the sources: the model learns to stop at them.
    pub fn end_tokens(&self) -> Vec<u32> {
        self.sources.iter().filter_map(|source| source.encoder.end_token()).collect()
    }

    /// What the rows of each source are, for a resumed run to compare.
    pub fn fingerprints(&self) -> BTreeMap<String, String> {
        let fingerprint = |source: &Source| match &source.rows {
            // The config names them.
            Rows::Traces { .. } => "traces".to_owned(),
            Rows::Files { train, held_out } => format!("{:016x}-{:016x}", train.fingerprint(), held_out.fingerprint()),
        };
        self.sources.iter().map(|source| (source.name.clone(), fingerprint(source))).collect()
    }

    /// How many times the rows have been gone through, where they have an end.
    pub fn epochs(&self) -> Option<f64> {
        rows(&self.sources).ok().map(|rows| self.used as f64 / rows as f64)
    }

    /// Whether all passes are done.
    fn is_over(&self) -> bool {
        self.rows.is_some_and(|rows| self.used >= rows)
    }

    /// The samples of the next step; fewer in the last step of the last pass.
    pub fn batch(&mut self) -> Result<Vec<SftSample>> {
        let (mut batch, mut rows, mut tokens) = (Vec::new(), 0, 0);
        let step_size = self.step_size;
        let enough = |rows, tokens| match step_size {
            StepSize::Samples(samples) => rows >= samples,
            StepSize::Tokens(wanted) => tokens >= wanted,
        };
        while !enough(rows, tokens) && !self.is_over() {
            let (source, row) = self.turn();
            let samples = self.sources[source].samples(row, self.longest)?;
            // Of a conversation that is several samples, the longest: what was counted when the rows were read.
            tokens += samples.iter().map(|sample| sample.tokens.len()).max().unwrap_or(0);
            batch.extend(samples);
            (self.used, rows) = (self.used + 1, rows + 1);
        }
        Ok(batch)
    }

    /// Source and row of the next turn.
    fn turn(&mut self) -> (usize, usize) {
        let from = self.used / BLOCK as u64 * BLOCK as u64;
        if self.turns.1.is_empty() || self.turns.0 != from {
            self.turns = (from, self.order.turns(from, BLOCK));
        }
        self.turns.1[(self.used - from) as usize]
    }

    /// The samples of the first `count` held-out rows, or of as many as there are, of all sources in turn.
    pub fn held_out(&self, count: usize) -> Result<Vec<SftSample>> {
        let (mut samples, mut found) = (Vec::new(), 0);
        for row in 0.. {
            let mut any = false;
            for source in &self.sources {
                if found == count {
                    return Ok(samples);
                }
                let Some((example, completion)) = source.rows.held_out(row) else { continue };
                samples.extend(source.encode(&example, &completion, self.longest)?);
                (any, found) = (true, found + 1);
            }
            if !any {
                break;
            }
        }
        Ok(samples)
    }
}

/// The sources of a config: those of a mixture, or the one that there is.
fn asked(config: &SftConfig) -> Result<Vec<Asked<'_>>> {
    let DataConfig::Mixture { sources } = &config.data else {
        let name = if matches!(config.data, DataConfig::File(_)) { "file-0" } else { "traces-0" };
        return Ok(vec![Asked { name: name.into(), weight: 1.0, data: &config.data, prompt: &config.prompt }]);
    };
    ensure!(!sources.is_empty(), "data.sources is empty: a mixture needs at least one source");
    let asked = sources.iter().enumerate().map(|(index, source)| {
        let kind = if matches!(source.from, DataConfig::File(_)) { "file" } else { "traces" };
        let name = source.name.clone().unwrap_or_else(|| format!("{kind}-{index}"));
        let prompt = source.prompt.as_ref().unwrap_or(&config.prompt);
        Asked { name, weight: source.weight, data: &source.from, prompt }
    });
    Ok(asked.collect())
}

/// The rows of all sources; an error where one has no end.
fn rows(sources: &[Source]) -> Result<u64> {
    let rows = |source: &Source| match &source.rows {
        Rows::Files { train, .. } => Ok(train.len() as u64),
        Rows::Traces { .. } => bail!("epochs: {} are made without end: give steps instead", source.name),
    };
    sources.iter().map(rows).sum()
}

impl Source {
    fn open<W>(asked: &Asked, config: &SftConfig, longest: usize, folder: &ModelFolder<W>) -> Result<Self> {
        let encoder = Encoder::new(asked.prompt, config.learn, folder)?;
        let name = asked.name.clone();
        let made = match asked.data {
            DataConfig::Countdown { problems } => Some(Rows::traces(problems, config)?),
            DataConfig::ThreeSum { problems } => Some(Rows::traces(problems, config)?),
            DataConfig::Parity { problems } => Some(Rows::traces(problems, config)?),
            _ => None,
        };
        if let Some(rows) = made {
            return Ok(Self { name, rows, encoder, lengths: Vec::new(), dropped: 0 });
        }
        match asked.data {
            DataConfig::File(file) => {
                let (train, held_out) = from_files(file)?;
                let limit = "the limit of a sample: shorten them, raise max_tokens or set truncate = true";
                let room = |what| Room { tokens: longest, long: file.long_prompts, what, limit };
                let fit = |rows: FileRows, what| -> Result<Fitted> {
                    let length = |example: Example| encoder.length(&example);
                    if config.truncate {
                        let all = Room { tokens: usize::MAX, long: LongPrompts::Error, what, limit };
                        return all.fit(Box::new(rows), usize::MAX, &length);
                    }
                    room(what).fit(Box::new(rows), usize::MAX, &length)
                };
                let (train, held_out) = (fit(train, "samples")?, fit(held_out, "held-out samples")?);
                ensure!(
                    !train.rows.is_empty(),
                    "all {} samples are longer than {longest} tokens, {limit}",
                    train.dropped
                );
                let dropped = train.dropped + held_out.dropped;
                let rows = Rows::Files { train: train.rows, held_out: held_out.rows };
                Ok(Self { name, rows, encoder, lengths: train.lengths, dropped })
            }
            _ => bail!(
                "data.dataset: supervised training reads completions from \"file\" or makes traces of \"countdown\", \
                 \"three_sum\" or \"parity\""
            ),
        }
    }

    fn lane(&self, weight: f64) -> Lane {
        match &self.rows {
            Rows::Files { train, .. } => Lane { weight, len: train.len(), shuffled: true },
            Rows::Traces { .. } => Lane { weight, len: 1 << 40, shuffled: false },
        }
    }

    fn samples(&self, row: usize, longest: usize) -> Result<Vec<SftSample>> {
        let (example, completion) = self.rows.train(row);
        self.encode(&example, &completion, longest)
    }

    /// The samples of a row. Those of files that are too long are left out or to be cut; of traces none may be.
    fn encode(&self, example: &Example, completion: &str, longest: usize) -> Result<Vec<SftSample>> {
        let mut samples = self.encoder.encode(example, completion)?;
        for sample in &mut samples {
            let length = sample.tokens.len();
            ensure!(
                length <= longest || matches!(self.rows, Rows::Files { .. }),
                "{} has {length} tokens, more than the {longest} of the longest sample",
                example.id
            );
            sample.truncate(longest);
        }
        Ok(samples)
    }
}

impl Encoder {
    /// Tokens of the longest sample of a row.
    fn length(&self, example: &Example) -> Result<usize> {
        let samples = self.encode(example, &example.answer)?;
        Ok(samples.iter().map(|sample| sample.tokens.len()).max().unwrap_or(0))
    }
}

/// Rows to train on and rows held out.
fn from_files(file: &FileConfig) -> Result<(FileRows, FileRows)> {
    let open = |paths: &[_]| -> Result<FileRows> {
        Ok(FileRows::open(&hub::data_files(paths)?, &file.columns, Purpose::Completion)?)
    };
    let mut rows = open(file.path.all())?;
    if let Some(path) = &file.rates {
        rows = rows.joined(path)?;
    }
    let rows = rows.only(&file.only)?;
    match &file.held_out {
        HeldOut::Share(share) => Ok(rows.split(*share)?),
        HeldOut::Files(paths) => Ok((rows, open(paths.all())?)),
    }
}

impl Rows {
    fn traces<T: Traced + Clone + 'static>(task: &T, config: &SftConfig) -> Result<Self> {
        let traces = |seed, split| -> Result<Box<dyn TraceSource>> {
            let problems = Generated::new(task.clone(), seed, split)?;
            Ok(Box::new(Traces::new(problems, config.traces.clone(), seed)?))
        };
        // The same held-out problems for every seed, so that runs can be compared.
        let held_out = (config.eval.rows > 0).then(|| traces(0, Split::HeldOut)).transpose()?;
        Ok(Self::Traces { train: traces(config.seed, Split::Train)?, held_out })
    }

    /// Row `row` to train on, with its completion.
    fn train(&self, row: usize) -> (Example, String) {
        match self {
            Self::Traces { train, .. } => trace(&**train, row),
            Self::Files { train, .. } => completed(train.get(row)),
        }
    }

    /// Row `row` of those held out; `None` where none is.
    fn held_out(&self, row: usize) -> Option<(Example, String)> {
        match self {
            Self::Traces { held_out, .. } => held_out.as_ref().map(|traces| trace(&**traces, row)),
            Self::Files { held_out, .. } => (row < held_out.len()).then(|| completed(held_out.get(row))),
        }
    }
}

fn trace(traces: &dyn TraceSource, row: usize) -> (Example, String) {
    let trace = traces.get(row);
    (trace.example, trace.completion)
}

fn completed(example: Example) -> (Example, String) {
    let completion = example.answer.to_string();
    (example, completion)
}
