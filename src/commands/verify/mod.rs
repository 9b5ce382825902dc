//! `reckon verify`: verdicts without a model, one file for each action.

mod audit;
mod bench;
mod new;
mod replay;
mod score;
mod test;

use std::path::Path;

use anyhow::{Context, Result};
use reckon_datasets::{Example, Row};
use reckon_rewards::{Registry, Rubric, Submission, Verdict, VerifierConfig, VerifierError, submission};

use crate::strict::{self, Document};

/// Arguments of `reckon verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Score a file of rows such as `{"answer": reference, "completion": text, ...}`.
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
    /// A rubric of this verifier alone.
    fn build(&self, registry: &Registry) -> Result<Rubric> {
        let kind = format!("kind = {}", toml::Value::from(self.kind.as_str()));
        let config: VerifierConfig = strict::load(&kind, "--kind", &self.sets)?;
        Ok(Rubric::of(config.build_with(registry)?)?)
    }
}

/// The rows of a file of any kind that is read.
fn read_rows(file: &Path) -> Result<Vec<(Example, String)>> {
    let mut rows = Vec::new();
    reckon_datasets::read_rows(file, &mut |row| {
        rows.push(row);
        Ok(())
    })?;
    let read = rows.into_iter().map(|Row { columns, place, .. }| {
        submission(columns, &place).with_context(|| format!("{}, {place}", file.display()))
    });
    read.collect()
}

/// What is said of each row: a verdict, or that it cannot be judged.
type Judged = Result<Verdict, VerifierError>;

/// One verdict for each row by a rubric of one verifier, or what makes it impossible.
fn verdicts(rubric: &Rubric, rows: &[(Example, String)]) -> Result<Vec<Judged>> {
    let rows: Vec<_> = rows.iter().map(|(example, completion)| Submission::new(example, completion)).collect();
    let verdict = |judged: reckon_rewards::Judged| match judged {
        Ok(score) => Ok(Ok(score.parts.into_iter().next().context("no verdict for a row")?)),
        Err(error) => Ok(Err(error)),
    };
    rubric.score_all(&rows)?.into_iter().map(verdict).collect()
}
