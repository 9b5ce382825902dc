//! A source of examples, opened: what is trained on, what is held out, and the template between them and the model.

use anyhow::{Result, anyhow, bail, ensure};
use reckon_datasets::{Dataset, Example, FileRows, Generated, Purpose, Split, Task};

use super::fit::{Fitted, Room};
use super::template::Template;
use crate::config::{DataConfig, FileConfig, HeldOut, LongPrompts, Paths, SourceView};
use crate::hub;
use crate::model::Companions;

/// A source of a run.
pub struct Source {
    /// What metrics and errors call it.
    pub name: String,
    /// What is known of the rows: the shape that files were recognised as, or the task that is generated.
    pub shape: String,
    /// Relative to other sources.
    pub weight: f64,
    /// Rows to train on.
    pub train: Box<dyn Dataset>,
    /// Rows never trained on.
    pub held_out: Box<dyn Dataset>,
    /// Whether the training rows are used in random order; generated ones have one already.
    pub shuffled: bool,
    /// How a row becomes a prompt.
    pub template: Template,
    long_prompts: LongPrompts,
}

/// Rows of an endless source that are looked at before a run.
pub const LOOKED_AT: usize = 1000;

/// Rows from which on a source counts as endless: generated problems have as many.
const ENDLESS: usize = 1 << 30;

/// Tokens of the prompts of a source.
#[derive(Debug, Default)]
pub struct Lengths {
    /// Of the rows to train on, in order; the first ones of an endless source.
    pub train: Vec<usize>,
    /// Of the held-out rows.
    pub held_out: Vec<usize>,
    /// Rows of both sides that were left out because they are too long.
    pub dropped: usize,
}

impl Source {
    /// Opens source number `index` for a model with these `companions`. Files are read; generated problems are made when asked for.
    pub fn open(view: &SourceView, index: usize, companions: &Companions, seed: u64) -> Result<Self> {
        let kind = kind(view.from);
        let name = view.name.map_or_else(|| format!("{kind}-{index}"), str::to_owned);
        let rows = open(view.from, seed).map_err(|e| anyhow!("data source \"{name}\": {e:#}"))?;
        let template = Template::new(view.prompt, companions)?;
        let Rows { train, held_out, shape, shuffled } = match view.rows {
            Some(first) if !rows.shuffled => rows.first(first),
            _ => rows,
        };
        let long_prompts = match view.from {
            DataConfig::File(file) => file.long_prompts,
            _ => LongPrompts::Error,
        };
        Ok(Self { name, shape, weight: view.weight, train, held_out, shuffled, template, long_prompts })
    }

    /// Opens a held-out set. Of files all rows are in it.
    pub(super) fn open_set(view: &SourceView, companions: &Companions) -> Result<Self> {
        let from = match view.from {
            DataConfig::File(file) => DataConfig::File(FileConfig { held_out: HeldOut::Share(0.0), ..file.clone() }),
            generated => generated.clone(),
        };
        Self::open(&SourceView { from: &from, ..*view }, 0, companions, 0)
    }

    /// A held-out set as all that is held out.
    pub(super) fn all_held_out(mut self) -> Self {
        if self.shuffled {
            std::mem::swap(&mut self.train, &mut self.held_out);
        }
        self
    }

    /// The source without prompts of more than `tokens` tokens, and how long the others are; `length` counts one. A run
    /// that does not leave them out is refused, for a `limit` of this name.
    pub(super) fn fit(
        mut self,
        tokens: usize,
        limit: &str,
        length: &(dyn Fn(&Template, Example) -> Result<usize> + Sync),
    ) -> Result<(Self, Lengths)> {
        let fit = |rows: Box<dyn Dataset>, side: &str| -> Result<Fitted> {
            let count = if rows.len() < ENDLESS { usize::MAX } else { LOOKED_AT };
            let what = format!("{side} of data source \"{}\"", self.name);
            let room = Room { tokens, long: self.long_prompts, what: &what, limit };
            room.fit(rows, count, &|example| length(&self.template, example))
        };
        let train = fit(self.train, "prompts")?;
        let held_out = fit(self.held_out, "held-out prompts")?;
        ensure!(
            !train.rows.is_empty(),
            "all {} prompts of data source \"{}\" are longer than {tokens} tokens, {limit}",
            train.dropped,
            self.name
        );
        (self.train, self.held_out) = (train.rows, held_out.rows);
        let dropped = train.dropped + held_out.dropped;
        Ok((self, Lengths { train: train.lengths, held_out: held_out.lengths, dropped }))
    }

    /// Stands for all rows of both sides.
    pub fn fingerprint(&self) -> String {
        format!("{:016x}-{:016x}", self.train.fingerprint(), self.held_out.fingerprint())
    }
}

fn kind(data: &DataConfig) -> &'static str {
    match data {
        DataConfig::Countdown { .. } => "countdown",
        DataConfig::Arithmetic { .. } => "arithmetic",
        DataConfig::KnightsAndKnaves { .. } => "knights_and_knaves",
        DataConfig::ThreeSum { .. } => "three_sum",
        DataConfig::Parity { .. } => "parity",
        DataConfig::Multiplication { .. } => "multiplication",
        DataConfig::File(_) => "file",
        DataConfig::Mixture { .. } => "mixture",
    }
}

struct Rows {
    train: Box<dyn Dataset>,
    held_out: Box<dyn Dataset>,
    shape: String,
    shuffled: bool,
}

impl Rows {
    /// The first `count` of endless problems, which come in random order in each pass.
    fn first(self, count: usize) -> Self {
        let shape = format!("{}, {count} of them", self.shape);
        Self { train: Box::new(First { rows: self.train, count }), shape, shuffled: true, ..self }
    }
}

/// The first rows of others.
struct First {
    rows: Box<dyn Dataset>,
    count: usize,
}

impl Dataset for First {
    fn len(&self) -> usize {
        self.count.min(self.rows.len())
    }

    fn get(&self, index: usize) -> Example {
        self.rows.get(index)
    }
}

fn open(data: &DataConfig, seed: u64) -> Result<Rows> {
    match data {
        DataConfig::Countdown { problems } => generated(problems, seed),
        DataConfig::Arithmetic { problems } => generated(problems, seed),
        DataConfig::KnightsAndKnaves { problems } => generated(problems, seed),
        DataConfig::ThreeSum { problems } => generated(problems, seed),
        DataConfig::Parity { problems } => generated(problems, seed),
        DataConfig::Multiplication { problems } => generated(problems, seed),
        DataConfig::File(file) => from_files(file),
        DataConfig::Mixture { .. } => bail!("a mixture is no source: name one of its own"),
    }
}

fn generated<T: Task + Clone + 'static>(task: &T, seed: u64) -> Result<Rows> {
    Ok(Rows {
        train: Box::new(Generated::new(task.clone(), seed, Split::Train)?),
        // The same held-out problems for every seed, so that runs can be compared.
        held_out: Box::new(Generated::new(task.clone(), 0, Split::HeldOut)?),
        shape: format!("{} of {}", T::NAME, task.describe()),
        shuffled: false,
    })
}

fn from_files(file: &FileConfig) -> Result<Rows> {
    let open = |paths: &Paths| -> Result<FileRows> {
        Ok(FileRows::open(&hub::data_files(paths.all())?, &file.columns, Purpose::Reference)?)
    };
    let mut rows = open(&file.path)?;
    if let Some(path) = &file.rates {
        rows = rows.joined(path)?;
    }
    let rows = rows.only(&file.only)?;
    let shape = rows.shape().to_owned();
    let (train, held_out) = match &file.held_out {
        HeldOut::Share(share) => rows.split(*share)?,
        HeldOut::Files(paths) => (rows, open(paths)?),
    };
    Ok(Rows { train: Box::new(train), held_out: Box::new(held_out), shape, shuffled: true })
}
