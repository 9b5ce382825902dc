//! `reckon verify`: verdicts without a model.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use reckon_datasets::Example;
use reckon_rewards::VerifierConfig;
use serde_json::{Value, json};

use super::read_text;

/// Arguments of `reckon verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Score a JSON Lines file of `{"answer": reference, "completion": text, ...}`.
    Score {
        /// Which verifier: format, exact, numeric, choice, regex or countdown.
        #[arg(long)]
        kind: String,
        /// The pattern, for `--kind regex`.
        #[arg(long)]
        pattern: Option<String>,
        /// The file.
        file: PathBuf,
        /// Print a verdict a line, in order.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: Args) -> Result<()> {
    let Action::Score { kind, pattern, file, json: as_json } = args.action;
    let mut options = serde_json::Map::from_iter([("kind".to_owned(), json!(kind))]);
    options.extend(pattern.map(|pattern| ("pattern".to_owned(), json!(pattern))));
    let verifier: VerifierConfig = serde_json::from_value(Value::Object(options))?;
    let verifier = verifier.build()?;
    let (mut rows, mut passed) = (0usize, 0usize);
    for (index, line) in read_text(&file)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = || format!("{}, line {}", file.display(), index + 1);
        let (example, completion) = row(line, index).with_context(place)?;
        let verdict = verifier.verify(&example, &completion).with_context(place)?;
        rows += 1;
        passed += usize::from(verdict.reward >= 1.0);
        if as_json {
            println!("{}", json!(verdict));
        }
    }
    if !as_json {
        println!("{passed} of {rows} pass");
    }
    Ok(())
}

/// An example and a completion; other columns go to `info`, where countdown finds its numbers and target.
fn row(line: &str, index: usize) -> Result<(Example, String)> {
    let mut row: serde_json::Map<String, Value> = serde_json::from_str(line)?;
    let mut text = |name: &str| match row.remove(name) {
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(other) => bail!("column \"{name}\" holds {other}, not a text or a number"),
        None => Ok(None),
    };
    let completion = text("completion")?.context("no column \"completion\"")?;
    let answer = text("answer")?.unwrap_or_default();
    let question = text("question")?.unwrap_or_default();
    Ok((Example { id: format!("line {}", index + 1), question, answer, info: row }, completion))
}
