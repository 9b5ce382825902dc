//! `reckon verify bench`: how fast verdicts are, over the rows of a file, or over a training config's data with made
//! completions: of each row its reference answer, an answer that is none, and the answer of the next row.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use reckon_datasets::Example;
use reckon_rewards::{Registry, Rubric, Submission};
use serde_json::json;

use super::super::arguments::whole;
use super::super::{ConfigArgs, load_companions};
use super::{VerifierArgs, read_rows};
use crate::output::say;
use crate::prompt::Source;

/// Rows of a config's data that are used.
const ROWS: usize = 1000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// TOML config of `reckon train`; the embedded one without it and without `--file`.
    #[arg(conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Override a key of the config, or give an option of the kind.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Which verifier judges the rows of `--file`.
    #[arg(long, requires = "file")]
    kind: Option<String>,
    /// A file for `--kind`, as `reckon verify score` reads it.
    #[arg(long, requires = "kind")]
    file: Option<PathBuf>,
    /// Verdicts to take.
    #[arg(long, value_parser = whole::<usize>(1), default_value_t = 100_000)]
    verdicts: usize,
    /// Completions judged in one call.
    #[arg(long, value_parser = whole::<usize>(1), default_value_t = 1)]
    batch: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    let (rubric, rows) = match (&args.kind, &args.file) {
        (Some(kind), Some(file)) => {
            (VerifierArgs { kind: kind.clone(), sets: args.sets }.build(registry)?, read_rows(file)?)
        }
        _ => {
            let config = ConfigArgs { config: args.config, sets: args.sets }.load()?;
            let views = config.sources()?;
            let [view] = views.as_slice() else {
                bail!("the config mixes {} data sources: measure one verifier with --kind and a file", views.len())
            };
            let rubric = Rubric::from_config_with(view.rubric, registry)?;
            let train = Source::open(view, 0, &load_companions(&config.model.name())?, config.seed)?.train;
            let examples: Vec<Example> = (0..ROWS.min(train.len())).map(|row| train.get(row)).collect();
            let rows = completions(&rubric, &examples);
            (rubric, rows)
        }
    };
    ensure!(!rows.is_empty(), "there is no row to judge");
    let (calls, passed) = measure(&rubric, &rows, args.verdicts, args.batch)?;
    report(calls, args.batch, passed, args.json)
}

/// Three completions for each row.
fn completions(rubric: &Rubric, examples: &[Example]) -> Vec<(Example, String)> {
    let answer = |row: usize| {
        let example = &examples[row % examples.len()];
        rubric.reference(example).map_or_else(|| example.answer.to_string(), |reference| reference.answer)
    };
    let rows = examples.iter().enumerate().flat_map(|(row, example)| {
        let answers = [answer(row), "no answer".to_owned(), answer(row + 1)];
        answers.map(|answer| (example.clone(), rubric.lay_out(example, &[&answer])))
    });
    rows.collect()
}

/// Seconds of each call, and how many completions passed.
fn measure(rubric: &Rubric, rows: &[(Example, String)], verdicts: usize, batch: usize) -> Result<(Vec<f64>, usize)> {
    let mut rows = rows.iter().map(|(example, completion)| Submission::new(example, completion)).cycle();
    let (mut calls, mut passed) = (Vec::new(), 0);
    // One call to warm up: a worker may have to start.
    rubric.score_batch(&rows.clone().take(batch).collect::<Vec<_>>())?;
    for _ in 0..verdicts.div_ceil(batch) {
        let submissions: Vec<_> = rows.by_ref().take(batch).collect();
        let start = Instant::now();
        let scores = rubric.score_batch(&submissions).context("the rubric failed")?;
        calls.push(start.elapsed().as_secs_f64());
        passed += scores.iter().filter(|score| score.total.is_some_and(|total| total > 0.0)).count();
    }
    Ok((calls, passed))
}

fn report(mut calls: Vec<f64>, batch: usize, passed: usize, json: bool) -> Result<()> {
    let (verdicts, seconds) = (calls.len() * batch, calls.iter().sum::<f64>());
    calls.sort_by(f64::total_cmp);
    let at = |share: f64| 1e6 * calls[((calls.len() - 1) as f64 * share).round() as usize];
    let (rate, p50, p99, max) = (verdicts as f64 / seconds.max(1e-9), at(0.5), at(0.99), at(1.0));
    if json {
        let report = json!({"verdicts": verdicts, "passed": passed, "batch": batch, "verdicts_per_s": rate,
            "p50_us": p50, "p99_us": p99, "max_us": max});
        say!("{report}")?;
    } else {
        say!("{verdicts} verdicts, {passed} of them rewarded: {rate:.0} a second on one thread")?;
        say!("a call of {batch}: p50 {p50:.2} us, p99 {p99:.2} us, slowest {max:.2} us")?;
    }
    Ok(())
}
