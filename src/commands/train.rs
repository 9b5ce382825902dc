//! `reckon train`: the run around [`Trainer::step`]: evaluation, metrics, checkpoints, signals, and the summary.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use reckon_rewards::Registry;

use super::verify::before_training;
use super::{ConfigArgs, compute, plan, policies, read_text, rollouts, scorer, signals, summary};
use crate::checkpoint::{RunFolder, state, write_file};
use crate::config::TrainConfig;
use crate::eval::{Evaluation, evaluate};
use crate::metrics::{MetricsFile, Record};
use crate::progress::Progress;
use crate::strict;
use crate::train::Trainer;

/// Arguments of `reckon train`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Folder of the run.
    #[arg(long, default_value = "runs/countdown")]
    out: PathBuf,
    /// Continue the run in this folder, with its own config.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["config", "sets", "dry_run"])]
    resume: Option<PathBuf>,
    /// Print the resolved config and what follows from it; run nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    if let Some(path) = args.resume {
        let folder = RunFolder::resume(path)?;
        let text = read_text(&folder.config())?;
        let config = strict::load(&text, &folder.config().display().to_string(), &[])?;
        let mut trainer = build(config, registry)?;
        check_memory(&mut trainer)?;
        let resumed = state::restore(&mut trainer, &folder)?;
        eprintln!(
            "{} at step {}",
            if resumed { "resumed" } else { "no checkpoint yet: started" },
            trainer.progress.step
        );
        return train(&mut trainer, &folder);
    }
    let config = args.config.load()?;
    let mut trainer = build(config, registry)?;
    if args.dry_run {
        return dry_run(&trainer);
    }
    check_memory(&mut trainer)?;
    let folder = RunFolder::create(args.out)?;
    write_file(&folder.config(), toml::to_string(&trainer.config)?.as_bytes())?;
    train(&mut trainer, &folder)
}

fn build(config: TrainConfig, registry: &Registry) -> Result<Trainer> {
    config.validate()?;
    let policy = policies::trained(&config)?;
    let scorer = scorer(&config, registry)?;
    Trainer::new(config, policy, scorer)
}

/// Refuses a run that would end for want of memory: first by its plan, then by its worst step.
fn check_memory(trainer: &mut Trainer) -> Result<()> {
    if let Some(free) = compute::memory(trainer.config.compute.target())? {
        plan::check(trainer, free + trainer.policy.held())?;
    }
    trainer.rehearse()
}

/// The resolved config, and what follows from it.
fn dry_run(trainer: &Trainer) -> Result<()> {
    let config = &trainer.config;
    println!("{}", toml::to_string(config)?);
    let r = &config.rollout;
    let rows = r.prompts_per_step * r.group_size;
    println!("# {rows} completions a step, at most {} tokens", rows * r.max_new_tokens);
    if let Some(before) = held_out(trainer)? {
        let (p, g) = (before.accuracy, r.group_size as i32);
        let silent = p.powi(g) + (1.0 - p).powi(g);
        println!("# measured pass rate {p:.3} on held-out problems: a group has no signal with chance {silent:.3}");
    }
    Ok(())
}

fn held_out(trainer: &Trainer) -> Result<Option<Evaluation>> {
    let eval = &trainer.config.eval;
    if eval.problems == 0 {
        return Ok(None);
    }
    let prompts = trainer.prompts().held_out(eval.problems)?;
    evaluate(trainer.engine(), trainer.scorer(), prompts, eval.samples, trainer.sampling()).map(Some)
}

fn train(trainer: &mut Trainer, folder: &RunFolder) -> Result<()> {
    eprintln!("{}", compute::place(&trainer.config.compute));
    let stop = signals::stop_flag()?;
    let mut metrics = MetricsFile::open(folder.metrics(), trainer.progress.step)?;
    let steps = trainer.config.steps;
    let before = before(trainer, folder, &mut metrics)?;
    let bar = Progress::steps(steps, "train");
    let mut after = None;
    while trainer.progress.step < steps && !stop.load(Ordering::Relaxed) {
        let done = trainer.step();
        let (mut record, groups) = saved_on_error(trainer, folder, done)?;
        let step = trainer.progress.step;
        if step.is_multiple_of(trainer.config.eval.every) || step == steps {
            after = evaluated(trainer, folder, &mut record, &bar)?;
        }
        bar.tick(step, &message(&record));
        let rollouts_every = trainer.config.save.rollouts_every;
        if rollouts_every > 0 && (step - 1).is_multiple_of(rollouts_every) {
            rollouts::write(folder, step, &groups)?;
        }
        metrics.append(&record)?;
        if step.is_multiple_of(trainer.config.save.every) || step == steps || stop.load(Ordering::Relaxed) {
            metrics.sync()?;
            state::save(trainer, folder)?;
        }
    }
    bar.finish(&format!("{} steps, in {}", trainer.progress.step, folder.path().display()));
    if trainer.progress.step == steps
        && let Some(before) = before
        && let Some(after) = after.map_or_else(|| held_out(trainer), |after| Ok(Some(after)))?
    {
        summary::print(&before, &after);
    }
    Ok(())
}

/// The held-out evaluation of the step just done, on its record.
fn evaluated(
    trainer: &mut Trainer,
    folder: &RunFolder,
    record: &mut Record,
    bar: &Progress,
) -> Result<Option<Evaluation>> {
    let found = saved_on_error(trainer, folder, held_out(trainer))?;
    if let Some(evaluation) = &found {
        let step = trainer.progress.step;
        evaluation.record(record);
        if trainer.progress.best.is_none_or(|(best, _)| evaluation.accuracy > best) {
            trainer.progress.best = Some((evaluation.accuracy, step));
        }
        bar.line(&format!("step {step}: held-out {}", describe(evaluation)));
    }
    Ok(found)
}

/// A broken verifier, among others, stops the run; what was learnt stays. In the midst of updates only the last checkpoint
/// is one to go on from.
fn saved_on_error<T>(trainer: &Trainer, folder: &RunFolder, result: Result<T>) -> Result<T> {
    result.map_err(|error| {
        let outcome = if trainer.updating { None } else { Some(state::save(trainer, folder)) };
        error.context(match outcome {
            None => "the run stopped amid an update; go on from its last checkpoint with --resume".to_owned(),
            Some(Ok(())) => "the run stopped; its last state is saved".to_owned(),
            // A card that has failed gives nothing back any more: why it failed is what counts.
            Some(Err(other)) => format!("the run stopped, and its last state could not be saved ({other:#})"),
        })
    })
}

/// The held-out evaluation before step 1, and the checkpoint of step 0. A resumed run reads the evaluation again.
fn before(trainer: &mut Trainer, folder: &RunFolder, metrics: &mut MetricsFile) -> Result<Option<Evaluation>> {
    if folder.before().exists() && trainer.progress.step > 0 {
        return serde_json::from_str(&read_text(&folder.before())?).context("before.json");
    }
    if trainer.progress.step > 0 {
        return Ok(None);
    }
    audit(trainer)?;
    let before = held_out(trainer)?;
    let mut record = Record::new(0);
    if let Some(evaluation) = &before {
        eprintln!("step 0: held-out {}", describe(evaluation));
        evaluation.record(&mut record);
        write_file(&folder.before(), &serde_json::to_vec(evaluation)?)?;
    }
    if metrics.is_empty() {
        metrics.append(&record)?;
    }
    state::save(trainer, folder)?;
    Ok(before)
}

/// A short audit of the first rows of the run.
fn audit(trainer: &Trainer) -> Result<()> {
    let config = &trainer.config;
    let prompts = trainer.prompts().train(0, config.audit.rows)?;
    for (index, source) in trainer.prompts().sources().iter().enumerate() {
        let mut seen = HashSet::new();
        let examples = prompts.iter().filter(|prompt| prompt.source == index).map(|prompt| &*prompt.example);
        let rows = examples
            .filter(|example| seen.insert(&example.id))
            .map(|example| Ok((example.clone(), source.template.render(example)?)))
            .collect::<Result<Vec<_>>>()?;
        for remark in before_training(trainer.scorer().rubric(index), &rows, &config.audit)? {
            eprintln!("audit: {remark}");
        }
    }
    Ok(())
}

fn describe(e: &Evaluation) -> String {
    format!(
        "accuracy {:.3} ± {:.3}, {:.0} tokens, {:.2} waits, at most {} attempts",
        e.accuracy, e.margin, e.len_mean, e.waits_mean, e.attempts_max
    )
}

fn message(record: &Record) -> String {
    let get = |name: &str| record.get(name).unwrap_or(0.0);
    format!(
        "reward {:.3}  length {:.0}  {:.0} tok/s  sample {:.2}s verify {:.2}s forward-backward {:.2}s update {:.2}s",
        get("reward/mean"),
        get("completion/len_mean"),
        get("speed/sample_tokens_per_s"),
        get("time/sample_s"),
        get("time/verify_s"),
        get("time/forward_backward_s"),
        get("time/update_s"),
    )
}
