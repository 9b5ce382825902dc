//! `reckon verify`: verdicts without a model, a file an action.

mod audit;
mod bench;
mod new;
mod replay;
mod score;
mod test;

use std::path::Path;

use anyhow::{Context, Result, bail};
use reckon_datasets::{Answer, Example, Row};
use reckon_rewards::{Registry, Scope, Submission, Verdict, Verifier, VerifierConfig, VerifierError};
use serde_json::{Map, Value};

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
    fn build(&self, registry: &Registry) -> Result<Box<dyn Verifier>> {
        let kind = format!("kind = {}", toml::Value::from(self.kind.as_str()));
        let config: VerifierConfig = strict::load(&kind, "--kind", &self.sets)?;
        Ok(config.build_with(registry)?)
    }
}

/// The rows of a file of any kind that is read.
fn read_rows(file: &Path) -> Result<Vec<(Example, String)>> {
    let mut rows = Vec::new();
    reckon_datasets::read_rows(file, &mut |row| {
        rows.push(row);
        Ok(())
    })?;
    let read = rows
        .into_iter()
        .map(|Row { columns, place, .. }| row(columns, &place).with_context(|| format!("{}, {place}", file.display())));
    read.collect()
}

/// What is said of each row: a verdict, or that it cannot be judged.
type Judged = Result<Verdict, VerifierError>;

/// One verdict for each row, or what makes it impossible. For a verifier that judges whole groups, consecutive rows with
/// the same question are a group.
fn verdicts(verifier: &dyn Verifier, rows: &[(Example, String)]) -> Result<Vec<Judged>> {
    let alone = verifier.scope() == Scope::Completion;
    let mut verdicts = Vec::with_capacity(rows.len());
    for batch in rows.chunk_by(|(a, _), (b, _)| alone || a.question == b.question) {
        let batch: Vec<_> = batch.iter().map(|(example, completion)| Submission::new(example, completion)).collect();
        match verifier.verify_batch(&batch) {
            Ok(judged) => verdicts.extend(judged.into_iter().map(Ok)),
            // One row that cannot be judged takes no other with it that can be judged alone.
            Err(VerifierError::Example { .. }) if alone => {
                for submission in &batch {
                    verdicts.push(one(verifier, *submission)?);
                }
            }
            Err(error @ VerifierError::Example { .. }) => verdicts.extend(batch.iter().map(|_| Err(error.clone()))),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(verdicts)
}

fn one(verifier: &dyn Verifier, submission: Submission) -> Result<Judged> {
    match verifier.verify_batch(&[submission]) {
        Ok(mut judged) => Ok(Ok(judged.pop().context("no verdict for a row")?)),
        Err(error @ VerifierError::Example { .. }) => Ok(Err(error)),
        Err(error) => Err(error.into()),
    }
}

/// An example and a completion; other columns go to `info`, where countdown finds its numbers and target. A list of
/// answers is one of which any will do.
fn row(mut row: Map<String, Value>, place: &str) -> Result<(Example, String)> {
    let mut texts = |name: &str| match row.shift_remove(name) {
        Some(Value::Array(several)) if name == "answer" => several.iter().map(|one| text(name, one)).collect(),
        Some(value) => Ok(vec![text(name, &value)?]),
        None => Ok(Vec::new()),
    };
    let completion = texts("completion")?.pop().context("no column \"completion\"")?;
    let answer = Answer::any_of(texts("answer")?);
    let question = texts("question")?.pop().unwrap_or_default();
    Ok((Example { id: place.to_owned(), question, answer, messages: Vec::new(), info: row }, completion))
}

fn text(name: &str, value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        other => bail!("column \"{name}\" holds {other}, not a text or a number"),
    }
}
