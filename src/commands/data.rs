//! `reckon data`: whether the data of a config can be used, and what it looks like, before anything is trained.

use anyhow::{Result, ensure};
use reckon_datasets::{Dataset, Example};
use reckon_rewards::{Registry, Rubric};

use super::{ConfigArgs, judge, open_prompts};
use crate::config::TrainConfig;
use crate::output::say;
use crate::prompt::Prompt;
use crate::prompt::{PromptSource, Source};

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
    /// Print prompts as the model will see them.
    Show {
        #[command(flatten)]
        config: ConfigArgs,
        /// How many.
        #[arg(long, default_value_t = 3)]
        count: usize,
        /// The first, counted from 0 in the order of the run.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Held-out prompts instead of those trained on.
        #[arg(long, conflicts_with = "from")]
        held_out: bool,
    },
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    match args.action {
        Action::Check(config) => check(&config.load()?, registry),
        Action::Show { config, count, from, held_out } => show(&config.load()?, count, from, held_out),
    }
}

/// Rows of each source that are read in a check: all of a file, and so many of an endless source.
const CHECKED: usize = 1000;

fn check(config: &TrainConfig, registry: &Registry) -> Result<()> {
    let (_, prompts) = open_prompts(config)?;
    let judge = judge(config, registry)?;
    let total: f64 = prompts.sources().iter().map(|source| source.weight).sum();
    for (index, source) in prompts.sources().iter().enumerate() {
        say!("{}: {}", source.name, source.shape)?;
        say!("  share of prompts  {:.3}", source.weight / total)?;
        for (side, rows) in [("trained on", &source.train), ("held out", &source.held_out)] {
            let count = if source.shuffled { rows.len() } else { CHECKED };
            let prompts = check_rows(&prompts, index, rows.as_ref(), count, judge.rubric(index))?;
            let known = if source.shuffled { format!("{count} rows") } else { format!("first {count}, endless") };
            say!("  {side:<17} {known}, prompts of {prompts} tokens")?;
        }
        say!("  fingerprint       {}", source.fingerprint())?;
        warn_of_repeats(source)?;
    }
    Ok(())
}

/// Renders and judges rows; returns the shortest, median and longest prompt.
fn check_rows(
    prompts: &PromptSource,
    source: usize,
    rows: &dyn Dataset,
    count: usize,
    rubric: &Rubric,
) -> Result<String> {
    let mut lengths = Vec::with_capacity(count);
    for row in 0..count {
        let example: Example = rows.get(row);
        rubric.score(&example, "")?;
        lengths.push(prompts.prompt(source, example, row as u64)?.tokens.len());
    }
    lengths.sort_unstable();
    ensure!(!lengths.is_empty(), "no row to check");
    Ok(format!("{} to {}, median {}", lengths[0], lengths[lengths.len() - 1], lengths[lengths.len() / 2]))
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
