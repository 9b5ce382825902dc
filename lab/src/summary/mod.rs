//! What a study says in words and figures: each arm before and after, arms beside each other on the same problems, each
//! with its interval, and "no difference shown" where that is what the data says.

mod text;

use crate::arms::{Arm, Study};
use crate::evals::{Eval, same_problems};
use crate::run::Run;
use crate::stats::{Band, Interval, Paired, band, bootstrap_difference, bootstrap_mean, mcnemar, mean, wilson};

/// Steps of training at either end that a figure of it is the mean of.
const ENDS: usize = 10;
/// Names the random draws of intervals.
const SEED: u64 = 17;
/// A test below it shows a difference.
pub const ALPHA: f64 = 0.05;

/// Of training metrics, those that the summary tells, where a run has them. Of held-out ones it tells all.
const TOLD: [&str; 6] = [
    "reward/mean",
    "completion/len_mean",
    "completion/truncated_frac",
    "policy/entropy",
    "policy/kl_ref",
    "group/zero_signal_frac",
];

/// An arm, before and after.
#[derive(Clone, Debug)]
pub struct ArmSummary {
    /// Its name.
    pub name: String,
    /// Its seeds.
    pub seeds: Vec<i64>,
    /// The last step of each seed, and how many the config asks for.
    pub steps: Vec<(u64, Option<u64>)>,
    /// Held-out accuracy; `None` where there is no evaluation.
    pub accuracy: Option<Accuracy>,
    /// What else changed: a metric's name with its bands over the seeds, at the beginning and at the end.
    pub changes: Vec<(String, Band, Band)>,
}

/// Held-out accuracy over an arm's seeds.
#[derive(Clone, Debug)]
pub struct Accuracy {
    /// Problems of an evaluation.
    pub problems: usize,
    /// Completions of each problem.
    pub samples: usize,
    /// In the first evaluation, with its 95% interval.
    pub before: (f64, Interval),
    /// In the last one.
    pub after: (f64, Interval),
    /// What was gained, on the same problems; `None` where there was one evaluation.
    pub gain: Option<(f64, Interval)>,
    /// Each seed's test of the last against the first, problem by problem; none where problems have several completions.
    pub tests: Vec<(i64, Paired)>,
    /// `k` with pass@k before and after, where problems have several completions.
    pub pass_at: Vec<(usize, f64, f64)>,
}

/// Two arms beside each other in their last evaluations.
#[derive(Clone, Debug)]
pub struct Between {
    /// The arm that is compared.
    pub arm: String,
    /// The arm that it is compared with: the first.
    pub with: String,
    /// The difference of their accuracies, with its 95% interval over seeds and problems.
    pub difference: f64,
    /// The interval.
    pub interval: Interval,
    /// The same for what was gained since their first evaluations, where both have one.
    pub gain: Option<(f64, Interval)>,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// In the study's order.
    pub arms: Vec<ArmSummary>,
    /// Each arm but the first beside the first, where they have the same problems.
    pub between: Vec<Between>,
    /// What could not be read, or was not compared and why.
    pub remarks: Vec<String>,
}

impl Summary {
    /// What the study says.
    pub fn of(study: &Study) -> Self {
        let mut summary =
            Self { arms: study.arms.iter().map(|arm| arm_summary(study, arm)).collect(), ..Self::default() };
        for run in &study.runs {
            let name = run.folder_name();
            summary.remarks.extend(run.remarks.iter().map(|remark| format!("{name}: {remark}")));
        }
        let Some((first, others)) = study.arms.split_first() else { return summary };
        for arm in others {
            match between(study, arm, first) {
                Some(found) => summary.between.push(found),
                None if !last_rates(study, arm).is_empty() && !last_rates(study, first).is_empty() => {
                    let remark = format!("{} and {} have other held-out problems: not compared", arm.name, first.name);
                    summary.remarks.push(remark);
                }
                None => {}
            }
        }
        summary
    }
}

fn arm_summary(study: &Study, arm: &Arm) -> ArmSummary {
    let runs: Vec<&Run> = study.of(arm).collect();
    ArmSummary {
        name: arm.name.clone(),
        seeds: runs.iter().map(|run| run.seed()).collect(),
        steps: runs.iter().map(|run| (run.steps.last().copied().unwrap_or(0), run.steps_asked())).collect(),
        accuracy: accuracy(study, arm),
        changes: changes(&runs),
    }
}

/// The first and the last evaluation of each run of an arm that has any.
fn ends<'a>(study: &'a Study, arm: &'a Arm) -> Vec<(i64, &'a Eval, &'a Eval)> {
    let of = |&run: &usize| Some((study.runs[run].seed(), study.evals[run].first()?, study.evals[run].last()?));
    arm.runs.iter().filter_map(of).collect()
}

/// Problem by problem, one row for each seed.
type Rates = Vec<Vec<f64>>;

fn accuracy(study: &Study, arm: &Arm) -> Option<Accuracy> {
    let ends = ends(study, arm);
    let (_, first, last) = ends.first()?;
    let (problems, samples) = (last.judged.len() / last.samples(), last.samples());
    let (before, after): (Rates, Rates) = ends.iter().map(|(_, a, b)| (a.rates(), b.rates())).unzip();
    let trained: Vec<_> = ends.iter().filter(|(_, a, b)| a.step < b.step && same_problems(a, b)).collect();
    let same = trained.len() == ends.len() && ends.iter().all(|(_, a, _)| same_problems(first, a));
    let gains: Rates = before.iter().zip(&after).map(|(b, a)| b.iter().zip(a).map(|(b, a)| a - b).collect()).collect();
    let passed = |eval: &Eval| eval.judged.iter().map(|judged| judged.passed).collect::<Vec<_>>();
    let single = trained.iter().filter(|(_, a, _)| samples == 1 && a.samples() == 1);
    Some(Accuracy {
        problems,
        samples,
        before: with_interval(&before, samples)?,
        after: with_interval(&after, samples)?,
        gain: if same { bootstrap_mean(&gains, SEED).map(|interval| (grand_mean(&gains), interval)) } else { None },
        tests: single.map(|(seed, a, b)| (*seed, mcnemar(&passed(a), &passed(b)))).collect(),
        pass_at: pass_at(&ends),
    })
}

/// pass@k for powers of 2, where each evaluation has several completions of a problem.
fn pass_at(ends: &[(i64, &Eval, &Eval)]) -> Vec<(usize, f64, f64)> {
    let samples = ends.iter().map(|(_, a, b)| a.samples().min(b.samples())).min().unwrap_or(1);
    let at = |k: usize, last: bool| {
        let found = ends.iter().filter_map(|(_, a, b)| if last { b.pass_at(k) } else { a.pass_at(k) });
        mean(&found.collect::<Vec<_>>())
    };
    let powers = (0..).map(|power| 1 << power).take_while(|&k| samples > 1 && k <= samples.min(128));
    powers.map(|k| (k, at(k, false), at(k, true))).collect()
}

/// The mean over seeds and problems with its interval: Wilson's for one seed and one completion of each problem, else by
/// drawing seeds and problems anew.
fn with_interval(rates: &Rates, samples: usize) -> Option<(f64, Interval)> {
    let interval = match (&rates[..], samples) {
        ([one], 1) => {
            let judged = one.iter().filter(|rate| rate.is_finite());
            wilson(judged.clone().filter(|rate| **rate == 1.0).count(), judged.count())
        }
        _ => bootstrap_mean(rates, SEED)?,
    };
    Some((grand_mean(rates), interval))
}

fn grand_mean(rates: &Rates) -> f64 {
    let judged = |row: &Vec<f64>| mean(&row.iter().copied().filter(|rate| rate.is_finite()).collect::<Vec<_>>());
    mean(&rates.iter().map(judged).collect::<Vec<_>>())
}

fn last_rates(study: &Study, arm: &Arm) -> Rates {
    ends(study, arm).iter().map(|(.., last)| last.rates()).collect()
}

fn between(study: &Study, arm: &Arm, with: &Arm) -> Option<Between> {
    let (ours, theirs) = (ends(study, arm), ends(study, with));
    let of_them = &theirs.first()?.2;
    if ours.is_empty() || !ours.iter().chain(&theirs).all(|(_, a, b)| same_problems(of_them, a) && same_problems(a, b))
    {
        return None;
    }
    let (ours_last, theirs_last) = (last_rates(study, arm), last_rates(study, with));
    let gains = |ends: &[(i64, &Eval, &Eval)]| -> Rates {
        let gain = |a: &Eval, b: &Eval| b.rates().iter().zip(a.rates()).map(|(b, a)| b - a).collect();
        ends.iter().map(|(_, a, b)| gain(a, b)).collect()
    };
    let trained = ours.iter().chain(&theirs).all(|(_, a, b)| a.step < b.step);
    let (our_gains, their_gains) = (gains(&ours), gains(&theirs));
    let gain = bootstrap_difference(&our_gains, &their_gains, SEED).filter(|_| trained);
    Some(Between {
        arm: arm.name.clone(),
        with: with.name.clone(),
        difference: grand_mean(&ours_last) - grand_mean(&theirs_last),
        interval: bootstrap_difference(&ours_last, &theirs_last, SEED)?,
        gain: gain.map(|interval| (grand_mean(&our_gains) - grand_mean(&their_gains), interval)),
    })
}

/// Means over the first and the last steps of training, or the first and the last evaluation.
fn changes(runs: &[&Run]) -> Vec<(String, Band, Band)> {
    let held_out = |name: &str| name.starts_with("eval/") && name != "eval/pass@1";
    let told = |name: &&String| {
        held_out(name) || TOLD.contains(&name.as_str()) || name.starts_with("behaviour/") || name.starts_with("words/")
    };
    let mut names: Vec<&String> = runs.iter().flat_map(|run| run.series.keys()).filter(told).collect();
    names.sort();
    names.dedup();
    let ends = |run: &Run, name: &str| {
        let values: Vec<f64> = run.points(name).map(|(_, value)| value).collect();
        let n = if held_out(name) { 1 } else { ENDS.min(values.len().div_ceil(2)) };
        (!values.is_empty()).then(|| (mean(&values[..n]), mean(&values[values.len() - n..])))
    };
    let change = |name: &String| {
        let (before, after): (Vec<f64>, Vec<f64>) = runs.iter().filter_map(|run| ends(run, name)).unzip();
        Some((name.clone(), band(&before)?, band(&after)?))
    };
    names.into_iter().filter_map(change).collect()
}
