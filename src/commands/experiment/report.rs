//! What came of an experiment, as text for a terminal and a README: each arm's numbers before and after, the seeds apart,
//! which of the criteria are met, and held-out accuracy with its intervals, which the crate `lab` computes. Of an
//! experiment that is not over, the runs that are.

use std::fmt::Write;

use anyhow::Result;
use reckon_lab::arms::Study;
use reckon_lab::summary::Summary;

use super::work::{Experiment, outcome};
use crate::config::{ArmConfig, CriterionConfig, Of};
use crate::eval::{Evaluation, in_words};
use crate::metrics;
use crate::run::Outcome;

/// A run that is over.
struct Done {
    outcome: Outcome,
    /// Accuracy and other numbers of each evaluation, the first included.
    evaluations: Vec<metrics::Record>,
}

/// An arm with its runs.
struct Arm<'a> {
    config: &'a ArmConfig,
    done: Vec<Done>,
}

/// The report.
pub(super) fn text(experiment: &Experiment) -> Result<String> {
    let (mut arms, mut runs) = (Vec::new(), Vec::new());
    for config in &experiment.config.arms {
        let mut done = Vec::new();
        for &seed in &experiment.config.seeds {
            let folder = experiment.run_folder(config, seed);
            let Some(outcome) = outcome(&folder)? else { continue };
            let mut evaluations = metrics::read(&folder.join("metrics.jsonl"))?;
            evaluations.retain(|record| record.get("eval/len_mean").is_some());
            done.push(Done { outcome, evaluations });
            runs.push(format!("{}={}", config.name, folder.display()));
        }
        arms.push(Arm { config, done });
    }
    let mut text = String::new();
    let seeds = experiment.config.seeds.len();
    for arm in &arms {
        arm_text(arm, seeds, &mut text);
    }
    for criterion in &experiment.config.criteria {
        let _ = writeln!(text, "{}", criterion_text(criterion, &arms));
    }
    text += &intervals(&runs)?;
    Ok(text)
}

/// The accuracies of `runs`, each `ARM=FOLDER`, with their intervals, and the arms beside the first one.
fn intervals(runs: &[String]) -> Result<String> {
    if runs.is_empty() {
        return Ok(String::new());
    }
    let mut summary = Summary::of(&Study::read(runs)?);
    // What else changed stands above.
    summary.arms.iter_mut().for_each(|arm| arm.changes.clear());
    Ok(format!("\n{summary}"))
}

/// What is shown of every arm; what its task counts follows.
const SHOWN: [&str; 7] = ["accuracy", "length", "length_right", "length_wrong", "length_max", "truncated", "entropy"];

fn arm_text(arm: &Arm, seeds: usize, text: &mut String) {
    let about = arm.config.about.as_ref().map_or(String::new(), |about| format!(": {about}"));
    let _ = writeln!(text, "{}{about} ({} of {seeds} seeds)", arm.config.name, arm.done.len());
    let Some(first) = arm.done.first() else {
        text.push('\n');
        return;
    };
    let counted = first.outcome.after.behaviours.iter().map(|(name, _)| name.as_str());
    for name in SHOWN.into_iter().chain(counted) {
        let of = |what: fn(&Outcome) -> &Evaluation| -> Vec<f64> {
            arm.done.iter().filter_map(|done| measure(what(&done.outcome), name)).collect()
        };
        let (before, after) = (of(|outcome| &outcome.before), of(|outcome| &outcome.after));
        let each = after.iter().map(|value| number(*value)).collect::<Vec<_>>().join(" ");
        let (before, after) = (mean(&before), mean(&after));
        let shown = |value: Option<f64>| value.map_or("-".to_owned(), number);
        let _ = writeln!(text, "  {:<28}{:>9} -> {:>9}   by seed: {each}", in_words(name), shown(before), shown(after));
    }
    text.push('\n');
}

/// Whether a criterion is met, or what is missing.
fn criterion_text(criterion: &CriterionConfig, arms: &[Arm]) -> String {
    let of = |name: &str| {
        let arm = arms.iter().find(|arm| arm.config.name == name)?;
        let values: Vec<f64> = arm.done.iter().filter_map(|done| value(criterion, done)).collect();
        mean(&values)
    };
    let found = of(&criterion.arm).and_then(|found| match &criterion.relative_to {
        Some(other) => of(other).map(|other| found / other),
        None => Some(found),
    });
    let least = criterion.at_least.map(|least| format!("at least {least}"));
    let most = criterion.at_most.map(|most| format!("at most {most}"));
    let wanted = [least, most].into_iter().flatten().collect::<Vec<_>>().join(", ");
    let Some(found) = found else { return format!("not measured  {} ({wanted})", criterion.says) };
    let met =
        criterion.at_least.is_none_or(|least| found >= least) && criterion.at_most.is_none_or(|most| found <= most);
    let verdict = if met { "met" } else { "MISSED" };
    format!("{verdict:<12}  {}: {} ({wanted})", criterion.says, number(found))
}

/// The number of one run that a criterion is about.
fn value(criterion: &CriterionConfig, done: &Done) -> Option<f64> {
    let Outcome { before, after } = &done.outcome;
    let of = |evaluation| measure(evaluation, &criterion.measure);
    match criterion.of {
        Of::After => of(after),
        Of::Before => of(before),
        Of::Gain => Some(of(after)? - of(before)?),
        Of::Ratio => Some(of(after)? / of(before)?),
        Of::HighestGain => {
            let name = recorded(&criterion.measure);
            let values = done.evaluations.iter().filter_map(|record| record.get(&name));
            Some(values.fold(f64::NEG_INFINITY, f64::max) - of(before)?)
        }
    }
}

/// A measure of an evaluation by the name that criteria use.
fn measure(found: &Evaluation, name: &str) -> Option<f64> {
    match name {
        "accuracy" => Some(found.accuracy),
        "length" => Some(found.len_mean),
        "length_max" => Some(found.len_max as f64),
        "length_right" => found.len_right,
        "length_wrong" => found.len_wrong,
        "truncated" => Some(found.truncated),
        "entropy" => Some(found.entropy),
        name => found.behaviour(name),
    }
}

/// The same measure in the records of a run.
fn recorded(name: &str) -> String {
    match name {
        "accuracy" => "eval/pass@1".to_owned(),
        "length" => "eval/len_mean".to_owned(),
        "length_max" => "eval/len_max".to_owned(),
        "length_right" => "eval/len_right".to_owned(),
        "length_wrong" => "eval/len_wrong".to_owned(),
        "truncated" => "eval/truncated_frac".to_owned(),
        name => format!("eval/{name}"),
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn number(value: f64) -> String {
    if value.abs() >= 10.0 { format!("{value:.1}") } else { format!("{value:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(before: f64, after: f64, evaluations: &[f64]) -> Done {
        let evaluation = |accuracy: f64| Evaluation {
            accuracy,
            len_mean: 100.0 * accuracy,
            behaviours: vec![("behaviour/attempts".to_owned(), 2.0)],
            ..Evaluation::default()
        };
        let record = |accuracy: &f64| {
            let mut record = metrics::Record::new(0);
            record.set("eval/pass@1", *accuracy);
            record
        };
        let outcome = Outcome { before: evaluation(before), after: evaluation(after) };
        Done { outcome, evaluations: evaluations.iter().map(record).collect() }
    }

    #[test]
    fn criteria_are_met_or_missed_by_the_mean_over_seeds() {
        let arm = |name: &str| ArmConfig { name: name.into(), about: None, base: None, set: Vec::new() };
        let (primed, direct, none) = (arm("primed"), arm("direct"), arm("none"));
        let arms = [
            Arm { config: &primed, done: vec![done(0.2, 0.8, &[0.2, 0.9, 0.8]), done(0.2, 0.6, &[0.2, 0.5, 0.6])] },
            Arm { config: &direct, done: vec![done(0.2, 0.3, &[0.2, 0.3])] },
            Arm { config: &none, done: Vec::new() },
        ];
        let check =
            |arm: &str, measure: &str, of, relative_to: Option<&str>, bounds: (Option<f64>, Option<f64>), expected| {
                let criterion = CriterionConfig {
                    says: "it".into(),
                    arm: arm.into(),
                    measure: measure.into(),
                    of,
                    relative_to: relative_to.map(str::to_owned),
                    at_least: bounds.0,
                    at_most: bounds.1,
                };
                assert_eq!(criterion_text(&criterion, &arms), expected);
            };
        check("primed", "accuracy", Of::Gain, None, (Some(0.3), None), "met           it: 0.500 (at least 0.3)");
        check("primed", "length", Of::Ratio, None, (Some(4.0), None), "MISSED        it: 3.500 (at least 4)");
        check(
            "direct",
            "accuracy",
            Of::Gain,
            Some("primed"),
            (None, Some(0.5)),
            "met           it: 0.200 (at most 0.5)",
        );
        check("primed", "accuracy", Of::HighestGain, None, (None, Some(0.5)), "MISSED        it: 0.550 (at most 0.5)");
        check(
            "primed",
            "behaviour/attempts",
            Of::Before,
            None,
            (Some(2.0), Some(2.0)),
            "met           it: 2.000 (at least 2, at most 2)",
        );
        check("none", "accuracy", Of::After, None, (Some(0.0), None), "not measured  it (at least 0)");
        check("primed", "behaviour/none", Of::After, None, (Some(0.0), None), "not measured  it (at least 0)");
    }
}
