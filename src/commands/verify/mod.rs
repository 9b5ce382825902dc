//! `reckon verify`: verdicts without a model, a file an action.

mod audit;
mod bench;
mod new;
mod replay;
mod score;
mod test;

use std::path::Path;

use anyhow::{Context, Result, bail};
use reckon_datasets::Example;
use reckon_rewards::{Registry, Scope, Submission, Verdict, Verifier, VerifierConfig};
use serde_json::{Map, Value};

use super::read_text;
use crate::strict::{self, Document};

/// Arguments of `reckon verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Score a JSON Lines file of `{"answer": reference, "completion": text, ...}`.
    Score(score::Args),
    /// Hold a training config's rubric and dataset to each other: references pass, everything else fails.
    Audit(audit::Args),
    /// Score a run's saved rollouts again; they must get the same verdicts.
    Replay(replay::Args),
    /// Verdicts a second, p50 and p99.
    Bench(bench::Args),
    /// Write a verifier of one's own to start from, with cases.
    New(new::Args),
    /// Compare the rewards of cases with those that they should get.
    Test(test::Args),
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    match args.action {
        Action::Score(args) => score::run(args, registry),
        Action::Audit(args) => audit::run(args, registry),
        Action::Replay(args) => replay::run(args, registry),
        Action::Bench(args) => bench::run(args, registry),
        Action::New(args) => new::run(args),
        Action::Test(args) => test::run(args, registry),
    }
}

/// A verifier named on the command line.
#[derive(Debug, clap::Args)]
struct VerifierArgs {
    /// Which verifier, as in a config: `numeric`, `countdown`, `python` and so on.
    #[arg(long)]
    kind: String,
    /// An option of that kind, such as `--set entry=mine.py:verify`; the value is TOML, or text where it is not.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

impl Document for VerifierConfig {}

impl VerifierArgs {
    fn build(&self, registry: &Registry) -> Result<Box<dyn Verifier>> {
        let kind = format!("kind = {}", toml::Value::from(self.kind.as_str()));
        let config: VerifierConfig = strict::load(&kind, "--kind", &self.sets)?;
        Ok(config.build_with(registry)?)
    }
}

/// The rows of a JSON Lines file, blank lines apart.
fn read_rows(file: &Path) -> Result<Vec<(Example, String)>> {
    let text = read_text(file)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = lines.map(|(index, line)| {
        let place = || format!("{}, line {}", file.display(), index + 1);
        row(serde_json::from_str(line).with_context(place)?, index + 1).with_context(place)
    });
    read.collect()
}

/// One verdict for each row. For a verifier that judges whole groups, consecutive rows with the same question are a group.
fn verdicts(verifier: &dyn Verifier, rows: &[(Example, String)]) -> Result<Vec<Verdict>> {
    let mut verdicts = Vec::with_capacity(rows.len());
    for batch in rows.chunk_by(|(a, _), (b, _)| verifier.scope() == Scope::Completion || a.question == b.question) {
        let batch: Vec<_> = batch.iter().map(|(example, completion)| Submission::new(example, completion)).collect();
        verdicts.extend(verifier.verify_batch(&batch)?);
    }
    Ok(verdicts)
}

/// An example and a completion; other columns go to `info`, where countdown finds its numbers and target.
fn row(mut row: Map<String, Value>, line: usize) -> Result<(Example, String)> {
    let mut text = |name: &str| match row.shift_remove(name) {
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(other) => bail!("column \"{name}\" holds {other}, not a text or a number"),
        None => Ok(None),
    };
    let completion = text("completion")?.context("no column \"completion\"")?;
    let answer = text("answer")?.unwrap_or_default();
    let question = text("question")?.unwrap_or_default();
    Ok((Example { id: format!("line {line}"), question, answer, info: row }, completion))
}
