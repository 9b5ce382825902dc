//! `reckon analyze`: what a run's saved rollouts show beyond its metrics, and with `--pass-at` or `--judge` what takes
//! sampling or another model to see. The measures are [`crate::analyze`]'s.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use reckon_rewards::Registry;
use serde_json::json;

use super::arguments::whole;
use super::{config_of_run, judge, policies};
use crate::analyze::behaviour_judge::{BEHAVIOURS, BehaviourJudge};
use crate::analyze::{Solved, Split, StepAnalysis, analyze_step, powers_of_two, solve, transcript};
use crate::behaviours::Behaviours;
use crate::checkpoint::latest;
use crate::config::TrainConfig;
use crate::environment::Environment;
use crate::eval::in_words;
use crate::groups::Rollouts;
use crate::judge::Judge;
use crate::output::{note, say};
use crate::prompt::PromptSource;
use crate::rollout::LocalSampler;
use crate::run::rollouts;

/// The environment variable that holds the key of a judge.
const KEY: &str = "RECKON_JUDGE_KEY";

/// Arguments of `reckon analyze`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of the run.
    run: PathBuf,
    /// Count these in place of what the run counts: readers of traces and lists of key words, as under `behaviours`.
    #[arg(long, value_delimiter = ',')]
    behaviours: Option<Vec<String>>,
    /// Steps that are shown, the first and the last among them; all are analyzed with `--json`.
    #[arg(long, value_parser = whole::<usize>(1), default_value_t = 6)]
    steps: usize,
    /// Sample held-out problems this often with the base and with the trained model, for pass@1 to pass@k; 0 for not at all.
    #[arg(long, value_parser = whole::<usize>(0), default_value_t = 0, value_name = "K")]
    pass_at: usize,
    /// Held-out problems of `--pass-at`.
    #[arg(long, value_parser = whole::<usize>(1), default_value_t = 50)]
    problems: usize,
    /// An OpenAI-compatible URL, such as `http://localhost:8000/v1`, whose model counts four behaviours in the first and the
    /// last step. The environment variable RECKON_JUDGE_KEY holds its key, if it wants one.
    #[arg(long, value_name = "URL", requires = "judge_model")]
    judge: Option<String>,
    /// The model that judges.
    #[arg(long, value_name = "NAME")]
    judge_model: Option<String>,
    /// Completions of a step that are judged.
    #[arg(long, value_parser = whole::<usize>(1), default_value_t = 32)]
    judge_samples: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What was found.
struct Found {
    steps: Vec<StepAnalysis>,
    /// Of the base and of the trained model.
    solved: Option<[Solved; 2]>,
    /// Mean counts by behaviour in the first and in the last step.
    judged: Option<Vec<(&'static str, [f64; 2])>>,
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    let mut config = config_of_run(&args.run)?;
    if let Some(named) = &args.behaviours {
        config.behaviours = Some(named.clone());
    }
    let (judge, behaviours) = (judge(&config, registry)?, Behaviours::of(&config)?);
    let files = rollouts::files(&args.run)?;
    ensure!(!files.is_empty(), "{} holds no rollouts: train with save.rollouts_every above 0", args.run.display());
    let analyzed = |file: &PathBuf| Ok(analyze_step(&rollouts::read(file)?, &judge, &behaviours));
    let steps = files.iter().map(analyzed).collect::<Result<Vec<_>>>()?;
    let solved = match args.pass_at {
        0 => None,
        samples => Some(pass_at(&args, samples, &config, &judge)?),
    };
    let judged = args.judge.as_ref().map(|url| ask(url, &args, &files)).transpose()?;
    let found = Found { steps, solved, judged };
    if args.json { print_json(&found) } else { print(&found, &args) }
}

/// Samples the held-out problems with the base and with the newest checkpoint.
fn pass_at(args: &Args, samples: usize, config: &TrainConfig, judge: &Judge) -> Result<[Solved; 2]> {
    let newest = latest(&args.run.join("checkpoints"))?.context("there is no checkpoint to sample from")?.1;
    let of = |model: &Path| {
        note!("{} completions of {} problems by {}", samples, args.problems, model.display());
        let mut config = config.clone();
        config.model.path = model.to_string_lossy().into_owned();
        let mut policy = policies::sampled(&config.model.path, &config.compute)?;
        let prompts = PromptSource::of(&config, &mut policy)?;
        let environment = Environment::of(&config, &prompts)?;
        let prompts = prompts.held_out(args.problems)?;
        let sampling = config.rollout.sampling(policy.config.eos_token_id.clone())?;
        let sampler = LocalSampler { capacity: config.rollout.capacity };
        let behaviours = Behaviours::default();
        let rollouts = Rollouts {
            policy: &policy,
            sampler: &sampler,
            judge,
            sampling: &sampling,
            behaviours: &behaviours,
            environment: environment.as_ref(),
            ranks: None,
            routed: false,
        };
        solve(rollouts, prompts, samples)
    };
    Ok([of(Path::new(&config.model.name()))?, of(&newest)?])
}

/// What the judge counts in the first and in the last step.
fn ask(url: &str, args: &Args, files: &[PathBuf]) -> Result<Vec<(&'static str, [f64; 2])>> {
    let model = args.judge_model.as_deref().unwrap_or_default();
    let judge = BehaviourJudge::new(url, model, std::env::var(KEY).ok())?;
    let (Some(first), Some(last)) = (files.first(), files.last()) else { return Ok(Vec::new()) };
    let transcripts = |file: &PathBuf| -> Result<Vec<String>> {
        let groups = rollouts::read(file)?;
        // One completion of each prompt, then the next of each: as many problems as there are.
        let longest = groups.iter().map(|group| group.rollouts.len()).max().unwrap_or(0);
        let nth = |n: usize| groups.iter().filter_map(move |group| Some((group, group.rollouts.get(n)?)));
        let all = (0..longest).flat_map(nth).take(args.judge_samples);
        Ok(all.map(|(group, rollout)| transcript(&group.example, &rollout.completion)).collect())
    };
    let steps = [transcripts(first)?, transcripts(last)?];
    let mut found = Vec::new();
    for behaviour in BEHAVIOURS {
        let mut means = [0.0; 2];
        for (mean, texts) in means.iter_mut().zip(&steps) {
            for text in texts {
                *mean += judge.count(behaviour, text)? as f64 / texts.len() as f64;
            }
        }
        found.push((behaviour.name, means));
    }
    Ok(found)
}

fn print_json(found: &Found) -> Result<()> {
    let pass = |solved: &[Solved; 2]| {
        let at = |k| json!({ "k": k, "base": solved[0].pass_at(k), "trained": solved[1].pass_at(k) });
        powers_of_two(solved[0].samples).into_iter().map(at).collect::<Vec<_>>()
    };
    let judged = found.judged.as_ref().map(|judged| {
        let one = |(name, means): &(&str, [f64; 2])| json!({ "behaviour": name, "first": means[0], "last": means[1] });
        judged.iter().map(one).collect::<Vec<_>>()
    });
    say!("{}", json!({ "steps": found.steps, "pass_at": found.solved.as_ref().map(pass), "judge": judged }))
}

fn print(found: &Found, args: &Args) -> Result<()> {
    let shown = spread(&found.steps, args.steps);
    let header: String = shown.iter().map(|found| format!("{:>10}", found.step)).collect();
    say!("{:<32}{header}", "step")?;
    let row = |name: &str, of: &dyn Fn(&StepAnalysis) -> Option<f64>| {
        let number = |value: Option<f64>| value.map_or(format!("{:>10}", "-"), |value| format!("{value:>10.3}"));
        say!("{name:<32}{}", shown.iter().map(|found| number(of(found))).collect::<String>())
    };
    let share = |split: &Split| split.accuracy().map(|(share, _)| share);
    row("accuracy", &|found| share(&found.all))?;
    row("with a reflection", &|found| share(&found.reflecting))?;
    row("without", &|found| share(&found.direct))?;
    row("completions with a reflection", &|found| {
        let all = found.reflecting.all + found.direct.all;
        (all > 0).then(|| found.reflecting.all as f64 / all as f64)
    })?;
    row("repeated 4-grams", &|found| Some(found.repetition))?;
    row("ends in a loop", &|found| Some(found.loops))?;
    row("mixed languages", &|found| Some(found.mixed_languages))?;
    let names = shown.last().map_or(&[][..], |found| &found.behaviours);
    for (name, _) in names {
        let of =
            |found: &StepAnalysis| found.behaviours.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        row(&in_words(name), &of)?;
    }
    if let Some(last) = shown.last() {
        reflection(last)?;
    }
    if let Some([base, trained]) = &found.solved {
        say!("\n{:<32}{:>10}{:>10}", "held-out", "base", "trained")?;
        for k in powers_of_two(base.samples) {
            say!("{:<32}{:>10.3}{:>10.3}", format!("pass@{k}"), base.pass_at(k), trained.pass_at(k))?;
        }
    }
    let Some(judged) = &found.judged else { return Ok(()) };
    say!("\n{:<32}{:>10}{:>10}", "counted by the judge", "first", "last")?;
    judged.iter().try_for_each(|(name, [first, last])| say!("{:<32}{first:>10.3}{last:>10.3}", name.replace('_', " ")))
}

/// Whether right answers go with reflection in a step: two shares with their intervals.
fn reflection(found: &StepAnalysis) -> Result<()> {
    let (Some((with, a)), Some((without, b))) = (found.reflecting.accuracy(), found.direct.accuracy()) else {
        return Ok(());
    };
    let apart = a.low > b.high || b.low > a.high;
    let verdict = if apart { "they differ" } else { "no difference shown" };
    say!(
        "\nstep {}: right {with:.3} [{:.3}, {:.3}] with a reflection, {without:.3} [{:.3}, {:.3}] without: {verdict}",
        found.step,
        a.low,
        a.high,
        b.low,
        b.high
    )
}

/// `count` of the steps, evenly spread, the first and the last among them.
fn spread(steps: &[StepAnalysis], count: usize) -> Vec<&StepAnalysis> {
    let last = steps.len().saturating_sub(1);
    let count = count.clamp(1, steps.len().max(1));
    let place = |i: usize| if count == 1 { last } else { (i * last + (count - 1) / 2) / (count - 1) };
    (0..count).filter_map(|i| steps.get(place(i))).collect()
}
