//! A run from its first step to its last: [`Trainer::step`] and what stands around it, which is evaluation on held-out
//! problems, metrics, rollouts and checkpoints on disk, resume, and an end when one is asked for.
//!
//! Leaves to the caller the folder, the trainer (restored where the run is resumed), and what is said of the outcome.

mod logs;
pub mod rollouts;

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use crate::audit;
use crate::checkpoint::{RunFolder, state};
use crate::disk::{read_text, write_file};
use crate::eval::{Evaluation, evaluate};
use crate::judge::Group;
use crate::metrics::{MetricsFile, Record};
use crate::progress::Bar;
use crate::train::{Step, Trainer};
use logs::Logs;

/// The held-out evaluations before the first step of a run and after its last.
#[derive(Debug)]
pub struct Outcome {
    /// Of the model that training began with.
    pub before: Evaluation,
    /// Of the one that came of it.
    pub after: Evaluation,
}

/// Trains until the last step of the config, or until `stop` is set: the step is finished then, and saved.
///
/// Goes on from where `trainer` stands, and says on `bar` how far it is. An outcome there is of a run that is over and has
/// held-out problems.
pub fn run(trainer: &mut Trainer, folder: &RunFolder, stop: &AtomicBool, bar: Bar) -> Result<Option<Outcome>> {
    let mut metrics = MetricsFile::open(folder.metrics(), trainer.progress.step)?;
    let mut logs = Logs::open(folder, &trainer.config)?;
    trainer.limit_tokens(trainer.progress.step.max(1));
    let before = before(trainer, folder, &mut metrics, &mut logs, &bar)?;
    let steps = trainer.config.steps;
    let mut after = None;
    while trainer.progress.step < steps && !is_out_of_patience(trainer) && !stop.load(Ordering::Relaxed) {
        let step = trainer.progress.step + 1;
        let one_step = |trainer: &mut Trainer| trainer.step().with_context(|| format!("step {step}"));
        let Step { mut record, groups } = saved_on_error(trainer, folder, one_step)?;
        let due = |every: u64| step.is_multiple_of(every) || step == steps;
        if due(trainer.config.eval.every) {
            after = saved_on_error(trainer, folder, |trainer| evaluated(trainer, &mut record, &bar))?;
            keep_eval(folder, step, after.as_ref())?;
        }
        // A checkpoint of the best, and one of where a run ends.
        let best = trainer.progress.best.is_some_and(|(_, best)| best == step);
        let ends = best || is_out_of_patience(trainer);
        bar.tick(step, &summary(&record, after.as_ref().or(before.as_ref())), &times(&record));
        keep_rollouts(trainer, folder, step, &groups)?;
        metrics.append(&record)?;
        logs.append(&record)?;
        if due(trainer.config.save.every) || ends || stop.load(Ordering::Relaxed) {
            metrics.sync()?;
            state::save(trainer, folder)?;
        }
    }
    let ended_early = is_out_of_patience(trainer);
    if let Some((best, at)) = trainer.progress.best.filter(|_| ended_early) {
        let (by, since) = (&trainer.config.eval.best_by, trainer.progress.since_best);
        bar.line(&format!("ends early: {since} evaluations without a {by} above {best:.3}, that of step {at}"));
    }
    bar.finish(&format!("{} steps, in {}", trainer.progress.step, folder.path().display()));
    let over = ended_early || trainer.progress.step == steps;
    if over {
        logs.finish()?;
    }
    let Some(before) = before.filter(|_| over) else { return Ok(None) };
    // A run that was over when it was resumed is evaluated again.
    let after = after.map_or_else(|| held_out(trainer), |after| Ok(Some(after)))?;
    let Some(after) = after else { return Ok(None) };
    write_file(&folder.after(), &serde_json::to_vec(&after)?)?;
    Ok(Some(Outcome { before, after }))
}

/// Whether the last `eval.patience` evaluations gave no new best.
fn is_out_of_patience(trainer: &Trainer) -> bool {
    let patience = trainer.config.eval.patience;
    patience > 0 && trainer.progress.since_best >= patience
}

/// The policy's accuracy on the held-out problems, where the config asks for some.
pub fn held_out(trainer: &Trainer) -> Result<Option<Evaluation>> {
    let eval = &trainer.config.eval;
    if eval.problems == 0 {
        return Ok(None);
    }
    let prompts = trainer.prompts().held_out(eval.problems)?;
    evaluate(trainer.rollouts_by(&trainer.eval_sampling()), prompts, eval.samples).map(Some)
}

/// The same on each of the further held-out sets, by name.
pub fn held_out_sets(trainer: &Trainer) -> Result<Vec<(String, Evaluation)>> {
    let eval = &trainer.config.eval;
    let sized = eval.sets.iter().enumerate().map(|(index, set)| (index, set, set.problems.unwrap_or(eval.problems)));
    let asked = sized.filter(|(.., problems)| *problems > 0);
    let evaluated = asked.map(|(index, set, problems)| {
        let prompts = trainer.prompts().set(index, problems)?;
        let found =
            evaluate(trainer.rollouts_by(&trainer.eval_sampling()), prompts, set.samples.unwrap_or(eval.samples))?;
        Ok((set.name.clone(), found))
    });
    evaluated.collect()
}

/// What precedes step 1: the audit, the first evaluation, and the checkpoint of step 0. A resumed run reads the evaluation.
fn before(
    trainer: &mut Trainer,
    folder: &RunFolder,
    metrics: &mut MetricsFile,
    logs: &mut Logs,
    bar: &Bar,
) -> Result<Option<Evaluation>> {
    if trainer.progress.step > 0 {
        let read = || serde_json::from_str(&read_text(&folder.before())?).context("before.json");
        return folder.before().exists().then(read).transpose();
    }
    trainer.prompts().dropped().iter().for_each(|line| bar.line(line));
    for remark in audit::before_training(trainer)? {
        bar.line(&format!("audit: {remark}"));
    }
    let before = held_out(trainer)?;
    let mut record = Record::new(0);
    if let Some(evaluation) = &before {
        evaluation.unreadable.iter().for_each(|fault| bar.line(&format!("held-out, left out: {fault}")));
        bar.line(&format!("step 0: held-out {evaluation}"));
        evaluation.record(&mut record);
        write_file(&folder.before(), &serde_json::to_vec(evaluation)?)?;
    }
    for (name, evaluation) in held_out_sets(trainer)? {
        evaluation.unreadable.iter().for_each(|fault| bar.line(&format!("held-out set {name}, left out: {fault}")));
        bar.line(&format!("step 0: held-out set {name} {evaluation}"));
        evaluation.record_as(&format!("eval/{name}"), &mut record);
    }
    if metrics.is_empty() {
        metrics.append(&record)?;
        logs.append(&record)?;
    }
    state::save(trainer, folder)?;
    Ok(before)
}

/// The held-out evaluations of the step just done, on its record.
fn evaluated(trainer: &mut Trainer, record: &mut Record, bar: &Bar) -> Result<Option<Evaluation>> {
    let step = trainer.progress.step;
    let found = held_out(trainer)?;
    if let Some(evaluation) = &found {
        evaluation.record(record);
        bar.line(&format!("step {step}: held-out {evaluation}"));
    }
    for (name, evaluation) in held_out_sets(trainer)? {
        evaluation.record_as(&format!("eval/{name}"), record);
        bar.line(&format!("step {step}: held-out set {name} {evaluation}"));
    }
    if let Some(value) = record.get(&format!("eval/{}", trainer.config.eval.best_by)) {
        if trainer.progress.best.is_none_or(|(best, _)| value > best) {
            (trainer.progress.best, trainer.progress.since_best) = (Some((value, step)), 0);
        } else {
            trainer.progress.since_best += 1;
        }
    }
    Ok(found)
}

/// The rollouts of the step just done, where they are kept, and a group of them for who watches.
fn keep_rollouts(trainer: &Trainer, folder: &RunFolder, step: u64, groups: &[Group]) -> Result<()> {
    let (every, token_groups) = (trainer.config.save.rollouts_every, trainer.config.log.token_groups);
    let saving =
        rollouts::Saving { judge: trainer.rollouts().judge, tokenizer: &trainer.policy.tokenizer, token_groups };
    if every > 0 && (step - 1).is_multiple_of(every) {
        rollouts::write(folder, step, groups, saving)?;
    }
    rollouts::write_live(folder, step, groups, saving)
}

/// An evaluation with its completions, so that two can be compared problem by problem.
fn keep_eval(folder: &RunFolder, step: u64, evaluation: Option<&Evaluation>) -> Result<()> {
    let Some(evaluation) = evaluation else { return Ok(()) };
    write_file(&folder.eval(step), &serde_json::to_vec(evaluation)?).context("cannot write the held-out evaluation")
}

/// Does `work`; an error of it, such as a broken verifier's, stops the run, and what was learned stays. Between the updates
/// of a step only the last checkpoint is one to go on from.
fn saved_on_error<T>(
    trainer: &mut Trainer,
    folder: &RunFolder,
    work: impl FnOnce(&mut Trainer) -> Result<T>,
) -> Result<T> {
    work(trainer).map_err(|error| {
        let outcome = trainer.can_be_resumed().then(|| state::save(trainer, folder));
        error.context(match outcome {
            None => "the run stopped amid an update; go on from its last checkpoint with --resume".to_owned(),
            Some(Ok(())) => "the run stopped; its last state is saved".to_owned(),
            // A card that has failed gives nothing back any more: why it failed is what counts.
            Some(Err(other)) => format!("the run stopped, and its last state could not be saved ({other:#})"),
        })
    })
}

/// What a person looks at first: whether the run learns.
fn summary(record: &Record, held_out: Option<&Evaluation>) -> String {
    let held_out = held_out.map_or(String::new(), |found| format!("  held-out {:.3}", found.accuracy));
    let reward = record.get("reward/mean").map_or("not judged".to_owned(), |mean| format!("{mean:.3}"));
    format!("reward {reward}{held_out}  length {:.0}", record.get("completion/len_mean").unwrap_or(0.0))
}

/// What else is worth a look, and where the time of a step goes.
fn times(record: &Record) -> String {
    let get = |name: &str| record.get(name).unwrap_or(0.0);
    format!(
        "entropy {:.2}  cut {:.1}%  {:.0} tok/s  sample {:.2}s  verify {:.2}s  forward-backward {:.2}s  update {:.2}s",
        get("policy/entropy"),
        100.0 * get("completion/truncated_frac"),
        get("speed/sample_tokens_per_s"),
        get("time/sample_s"),
        get("time/verify_s"),
        get("time/forward_backward_s"),
        get("time/update_s"),
    )
}
