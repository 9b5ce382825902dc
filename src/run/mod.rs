//! A run from its first step to its last: [`Trainer::step`] and what stands around it, which is evaluation on held-out
//! problems, metrics, rollouts and checkpoints on disk, resume, and an end when one is asked for.
//!
//! Leaves to the caller the folder, the trainer (restored where the run is resumed), and what is said of the outcome.

mod files;
mod logs;
pub mod rollouts;

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use crate::audit;
use crate::checkpoint::RunFolder;
use crate::eval::{Evaluation, evaluate};
use crate::metrics::Record;
use crate::progress::Bar;
use crate::train::{Step, Trainer};
use files::Files;

/// The held-out evaluations before the first step of a run and after its last.
#[derive(Debug)]
pub struct Outcome {
    /// Of the model that training began with.
    pub before: Evaluation,
    /// Of the one that came of it.
    pub after: Evaluation,
}

/// Trains until the last step of the config, or until `stop` is set on any rank: the step is finished then, and saved.
///
/// Goes on from where `trainer` stands, and says on `bar` how far it is. A rank without a folder writes nothing. An
/// outcome there is of a run that is over and has held-out problems.
pub fn run(trainer: &mut Trainer, folder: Option<&RunFolder>, stop: &AtomicBool, bar: Bar) -> Result<Option<Outcome>> {
    let mut files = Files::open(folder, trainer)?;
    trainer.sampler.publish(&trainer.policy)?;
    trainer.limit_tokens(trainer.progress.step.max(1));
    let before = before(trainer, &mut files, &bar)?;
    let steps = trainer.config.steps;
    let (mut after, mut stops) = (None, trainer.ranks.any(stop.load(Ordering::Relaxed))?);
    while trainer.progress.step < steps && !is_out_of_patience(trainer) && !stops {
        let step = trainer.progress.step + 1;
        let one_step = |trainer: &mut Trainer| trainer.step().with_context(|| format!("step {step}"));
        let Step { mut record, groups } = saved_on_error(trainer, &files, one_step)?;
        let due = |every: u64| step.is_multiple_of(every) || step == steps;
        if due(trainer.config.eval.every) {
            after = saved_on_error(trainer, &files, |trainer| evaluated(trainer, &mut record, &bar))?;
            files.keep_eval(step, after.as_ref())?;
        }
        // A checkpoint of the best, and one of where a run ends.
        let best = trainer.progress.best.is_some_and(|(_, best)| best == step);
        let ends = best || is_out_of_patience(trainer);
        bar.tick(step, &summary(&record, after.as_ref().or(before.as_ref())), &times(&record));
        files.keep_rollouts(trainer, step, &groups)?;
        files.append(&record)?;
        stops = trainer.ranks.any(stop.load(Ordering::Relaxed))?;
        if due(trainer.config.save.every) || ends || stops {
            files.save(trainer)?;
        }
    }
    let ended_early = is_out_of_patience(trainer);
    if let Some((best, at)) = trainer.progress.best.filter(|_| ended_early) {
        let (by, since) = (&trainer.config.eval.best_by, trainer.progress.since_best);
        bar.line(&format!("ends early: {since} evaluations without a {by} above {best:.3}, that of step {at}"));
    }
    bar.finish(&format!("{} steps, in {}", trainer.progress.step, files.place()));
    let over = ended_early || trainer.progress.step == steps;
    if over {
        files.finish()?;
    }
    let Some(before) = before.filter(|_| over) else { return Ok(None) };
    // A run that was over when it was resumed is evaluated again.
    let after = after.map_or_else(|| held_out(trainer), |after| Ok(Some(after)))?;
    let Some(after) = after else { return Ok(None) };
    files.keep_after(&after)?;
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
fn before(trainer: &mut Trainer, files: &mut Files, bar: &Bar) -> Result<Option<Evaluation>> {
    if trainer.progress.step > 0 {
        return trainer.ranks.from_first(files.are_kept().then(|| files.read_before()).transpose()?);
    }
    trainer.prompts().dropped().iter().for_each(|line| bar.line(line));
    let remarks = trainer.ranks.agree(audit::before_training(trainer))?;
    remarks[0].iter().for_each(|remark| bar.line(&format!("audit: {remark}")));
    let before = held_out(trainer)?;
    let mut record = Record::new(0);
    if let Some(evaluation) = &before {
        evaluation.unreadable.iter().for_each(|fault| bar.line(&format!("held-out, left out: {fault}")));
        bar.line(&format!("step 0: held-out {evaluation}"));
        evaluation.record(&mut record);
        files.keep_before(evaluation)?;
    }
    for (name, evaluation) in held_out_sets(trainer)? {
        evaluation.unreadable.iter().for_each(|fault| bar.line(&format!("held-out set {name}, left out: {fault}")));
        bar.line(&format!("step 0: held-out set {name} {evaluation}"));
        evaluation.record_as(&format!("eval/{name}"), &mut record);
    }
    files.begin(&record)?;
    files.save(trainer)?;
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

/// Does `work`; an error of it, such as a broken verifier's, stops the run, and what was learned stays. Between the updates
/// of a step only the last checkpoint is one to go on from, and where one of several ranks alone has failed: what the
/// others have of the moments is out of its reach.
fn saved_on_error<T>(trainer: &mut Trainer, files: &Files, work: impl FnOnce(&mut Trainer) -> Result<T>) -> Result<T> {
    let outcome = work(trainer).map_err(|error| {
        let whole = trainer.can_be_resumed();
        let outcome = (whole && trainer.ranks.have_shared(&error)).then(|| files.save(trainer));
        error.context(match outcome {
            None if whole => "the run stopped; go on from its last checkpoint with --resume".to_owned(),
            None => "the run stopped amid an update; go on from its last checkpoint with --resume".to_owned(),
            Some(Ok(())) => "the run stopped; its last state is saved".to_owned(),
            // A card that has failed gives nothing back any more: why it failed is what counts.
            Some(Err(other)) => format!("the run stopped, and its last state could not be saved ({other:#})"),
        })
    });
    trainer.ranks.same(outcome)
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
