//! `reckon data`: whether the data of a config can be used, what it looks like, and how hard it is, before anything is
//! trained.

mod measure;

use anyhow::{Result, bail};
use reckon_datasets::Dataset;
use reckon_rewards::{Registry, Rubric, VerifierError};

use super::arguments::whole;
use super::{ConfigArgs, judge, open_prompts};
use crate::config::TrainConfig;
use crate::output::say;
use crate::prompt::{LOOKED_AT, Prompt, Source};

/// Arguments of `reckon data`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Read every row, judge an empty completion of each, and count tokens.
    Check(ConfigArgs),
    /// Sample completions of each row that is trained on, and write how many of them pass.
    Measure(measure::Args),
    /// Print prompts as the model will see them.
    Show {
        #[command(flatten)]
        config: ConfigArgs,
        /// How many prompts.
        #[arg(long, value_parser = whole::<usize>(1), default_value_t = 3)]
        count: usize,
        /// Number of the first one, counted from 0 in the order of the run.
        #[arg(long, value_parser = whole::<u64>(0), default_value_t = 0)]
        from: u64,
        /// Held-out prompts instead of those trained on.
        #[arg(long, conflicts_with = "from")]
        held_out: bool,
    },
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    match args.action {
        Action::Check(config) => check(&config.load()?, registry),
        Action::Measure(args) => measure::run(args, registry),
        Action::Show { config, count, from, held_out } => show(&config.load()?, count, from, held_out),
    }
}

fn check(config: &TrainConfig, registry: &Registry) -> Result<()> {
    let (_, prompts) = open_prompts(config)?;
    let judge = judge(config, registry)?;
    let mut faults = Vec::new();
    let total: f64 = prompts.sources().iter().map(|source| source.weight).sum();
    for (index, source) in prompts.sources().iter().enumerate() {
        say!("{}: {}", source.name, source.shape)?;
        say!("  share of prompts  {:.3}", source.weight / total)?;
        let lengths = &prompts.lengths()[index];
        let sides = [("trained on", &source.train, &lengths.train), ("held out", &source.held_out, &lengths.held_out)];
        for (side, rows, lengths) in sides {
            let count = if source.shuffled { rows.len() } else { LOOKED_AT };
            faults.extend(check_rows(rows.as_ref(), count, judge.rubric(index))?);
            let known = if source.shuffled { format!("{count} rows") } else { format!("first {count}, endless") };
            say!("  {side:<17} {known}{}", spread(lengths))?;
        }
        if lengths.dropped > 0 {
            say!("  left out          {} rows, whose prompts are too long", lengths.dropped)?;
        }
        say!("  fingerprint       {}", source.fingerprint())?;
        warn_of_repeats(source)?;
    }
    if let Some(first) = faults.first() {
        bail!("{} rows cannot be judged: {first}", faults.len());
    }
    Ok(())
}

/// Judges an empty completion of each row; returns what is wrong with those that cannot be judged.
fn check_rows(rows: &dyn Dataset, count: usize, rubric: &Rubric) -> Result<Vec<VerifierError>> {
    let mut faults = Vec::new();
    for row in 0..count {
        match rubric.score(&rows.get(row), "") {
            Err(fault @ VerifierError::Example { .. }) => faults.push(fault),
            other => drop(other?),
        }
    }
    Ok(faults)
}

/// The shortest, median and longest prompt.
fn spread(lengths: &[usize]) -> String {
    let mut sorted = lengths.to_vec();
    sorted.sort_unstable();
    match sorted.as_slice() {
        [] => String::new(),
        [first, .., last] => format!(", prompts of {first} to {last}, median {} tokens", sorted[sorted.len() / 2]),
        [only] => format!(", a prompt of {only} tokens"),
    }
}

/// Says which held-out questions are trained on too.
fn warn_of_repeats(source: &Source) -> Result<()> {
    // A generated problem is on one side by construction.
    if !source.shuffled {
        return Ok(());
    }
    let trained: std::collections::HashSet<String> =
        (0..source.train.len()).map(|row| source.train.get(row).question).collect();
    let known = (0..source.held_out.len()).filter(|&row| trained.contains(&source.held_out.get(row).question)).count();
    if known > 0 {
        say!("  warning: {known} of {} held-out questions are trained on too", source.held_out.len())?;
    }
    Ok(())
}

fn show(config: &TrainConfig, count: usize, from: u64, held_out: bool) -> Result<()> {
    let (tokenizer, prompts) = open_prompts(config)?;
    let shown: Vec<Prompt> = if held_out { prompts.held_out(count)? } else { prompts.train(from, count)? };
    for prompt in shown {
        let source = &prompts.sources()[prompt.source].name;
        let text =
            tokenizer.decode(&prompt.tokens, false).map_err(|e| anyhow::anyhow!("cannot decode a prompt: {e}"))?;
        say!("--- {source}, {}, {} tokens", prompt.example.id, prompt.tokens.len())?;
        say!("{text}")?;
        say!("--- answer: {}\n", prompt.example.answer)?;
    }
    Ok(())
}
