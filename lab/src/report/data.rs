//! The part of a page that it reads at once: curves, tables, configs.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::packing::{Curve, Short};
use super::{Bands, Options};
use crate::arms::Study;
use crate::charts::{self, Chart};
use crate::evals::Eval;
use crate::rollups;
use crate::run::Run;
use crate::stats::{Interval, wilson};
use crate::summary::{ALPHA, Accuracy, ArmSummary, Between, Summary};
use crate::transcripts::Verdict;
use crate::words::{Rule, WordList};

#[derive(Serialize)]
struct Data<'a> {
    live: bool,
    version: &'static str,
    arms: Vec<ArmData<'a>>,
    runs: Vec<RunData<'a>>,
    charts: Vec<Chart>,
    meanings: BTreeMap<&'a str, String>,
    /// The questions of held-out problems, each list once.
    questions: Vec<Vec<&'a str>>,
    verdicts: Vec<&'static str>,
    /// What reflection is highlighted by.
    words: Vec<(&'static str, Rule)>,
    summary: String,
    figures: Vec<Value>,
    between: Vec<Value>,
    differences: Vec<(String, Vec<String>)>,
    remarks: &'a [String],
}

#[derive(Serialize)]
struct ArmData<'a> {
    name: &'a str,
    runs: &'a [usize],
}

#[derive(Serialize)]
struct RunData<'a> {
    name: String,
    arm: usize,
    seed: i64,
    asked: Option<u64>,
    steps: &'a [u64],
    series: BTreeMap<&'a str, Curve>,
    bands: BTreeMap<String, [Curve; 2]>,
    config: &'a str,
    machine: &'a Map<String, Value>,
    /// Steps whose rollouts are on the page, and how many the run has kept.
    texts: &'a [u64],
    kept: usize,
    /// Which list of questions its held-out problems are.
    questions: Option<usize>,
}

/// All of it as JSON; `kept` says for each run which rollouts are on the page, of how many.
pub(super) fn of(study: &Study, summary: &Summary, kept: &[(Vec<u64>, usize)], options: &Options) -> Result<String> {
    let mut questions: Vec<Vec<&str>> = Vec::new();
    let runs = study.runs.iter().enumerate().map(|(index, run)| RunData {
        name: run.folder_name(),
        arm: study.arms.iter().position(|arm| arm.runs.contains(&index)).unwrap_or(0),
        seed: run.seed(),
        asked: run.steps_asked(),
        steps: &run.steps,
        series: run.series.iter().map(|(name, values)| (name.as_str(), Curve::of(values))).collect(),
        bands: packed(bands(run, &study.evals[index])),
        config: &run.config,
        machine: &run.machine,
        texts: &kept[index].0,
        kept: kept[index].1,
        questions: study.evals[index].last().map(|eval| pooled(&mut questions, eval)),
    });
    let runs: Vec<RunData> = runs.collect();
    let names = study.runs.iter().flat_map(|run| run.series.keys());
    let meaning = |name: &'_ str| rollups::meaning(name).or_else(|| (options.meaning)(name));
    let meanings = names.filter_map(|name| Some((name.as_str(), meaning(name)?))).collect();
    let words = WordList::drawn().flat_map(|list| list.words.iter().map(|word| (*word, list.rule))).collect();
    Ok(serde_json::to_string(&Data {
        live: options.live,
        version: env!("CARGO_PKG_VERSION"),
        arms: study.arms.iter().map(|arm| ArmData { name: &arm.name, runs: &arm.runs }).collect(),
        charts: charts::of(study),
        meanings,
        verdicts: Verdict::ALL.map(Verdict::name).to_vec(),
        words,
        summary: summary.to_string(),
        figures: summary.arms.iter().map(figures).collect(),
        between: summary.between.iter().map(between).collect(),
        differences: study.differences(),
        remarks: &summary.remarks,
        runs,
        questions,
    })?)
}

/// The list of an evaluation's questions among those of the study, one for each problem.
fn pooled<'a>(questions: &mut Vec<Vec<&'a str>>, eval: &'a Eval) -> usize {
    let asked: Vec<&str> = eval.judged.chunks(eval.samples()).map(|tries| tries[0].question.as_str()).collect();
    questions.iter().position(|known| *known == asked).unwrap_or_else(|| {
        questions.push(asked);
        questions.len() - 1
    })
}

/// Wilson's interval around each held-out accuracy, where problems have one completion.
fn bands(run: &Run, evals: &[Eval]) -> Bands {
    let mut ends = [vec![f64::NAN; run.steps.len()], vec![f64::NAN; run.steps.len()]];
    for eval in evals.iter().filter(|eval| eval.samples() == 1) {
        let Ok(at) = run.steps.binary_search(&eval.step) else { continue };
        let judged: Vec<bool> = eval.judged.iter().filter_map(|judged| judged.passed).collect();
        let Interval { low, high } = wilson(judged.iter().filter(|passed| **passed).count(), judged.len());
        (ends[0][at], ends[1][at]) = (low, high);
    }
    if evals.is_empty() { Bands::new() } else { Bands::from([("eval/pass@1".to_owned(), ends)]) }
}

fn packed(bands: Bands) -> BTreeMap<String, [Curve; 2]> {
    bands.into_iter().map(|(name, ends)| (name, ends.map(|end| Curve::of(&end)))).collect()
}

fn span(interval: Interval) -> [Short; 2] {
    [Short(interval.low), Short(interval.high)]
}

fn figures(arm: &ArmSummary) -> Value {
    let changes = arm.changes.iter().map(|(name, before, after)| {
        json!({"name": name, "before": Short(before.mean), "after": Short(after.mean),
               "least": Short(after.min), "most": Short(after.max)})
    });
    json!({
        "name": arm.name,
        "seeds": arm.seeds,
        "accuracy": arm.accuracy.as_ref().map(accuracy),
        "changes": changes.collect::<Vec<_>>(),
    })
}

fn accuracy(accuracy: &Accuracy) -> Value {
    let tests = accuracy.tests.iter().map(|(seed, test)| {
        json!({"seed": seed, "won": test.only_second, "lost": test.only_first, "p": Short(test.p),
               "shown": test.p < ALPHA})
    });
    json!({
        "problems": accuracy.problems,
        "samples": accuracy.samples,
        "before": Short(accuracy.before.0),
        "before_span": span(accuracy.before.1),
        "after": Short(accuracy.after.0),
        "after_span": span(accuracy.after.1),
        "gain": accuracy.gain.map(|(gain, interval)| {
            json!({"mean": Short(gain), "span": span(interval), "shown": !interval.holds(0.0)})
        }),
        "tests": tests.collect::<Vec<_>>(),
        "pass_at": accuracy.pass_at.iter().map(|(k, before, after)| json!([k, Short(*before), Short(*after)]))
            .collect::<Vec<_>>(),
    })
}

fn between(between: &Between) -> Value {
    json!({
        "arm": between.arm,
        "with": between.with,
        "difference": Short(between.difference),
        "span": span(between.interval),
        "shown": !between.interval.holds(0.0),
        "gain": between.gain.map(|(gain, interval)| {
            json!({"mean": Short(gain), "span": span(interval), "shown": !interval.holds(0.0)})
        }),
    })
}
