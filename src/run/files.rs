//! What a run leaves on disk from step to step. Of several ranks the first one writes, and the others keep nothing.

use anyhow::{Context, Result};

use super::logs::Logs;
use super::rollouts;
use crate::checkpoint::{RunFolder, state};
use crate::disk::{read_text, write_file};
use crate::eval::Evaluation;
use crate::judge::Group;
use crate::metrics::{MetricsFile, Record};
use crate::train::Trainer;

/// The files of a run; nothing where another rank writes.
pub(super) struct Files<'a>(Option<Open<'a>>);

struct Open<'a> {
    folder: &'a RunFolder,
    metrics: MetricsFile,
    logs: Logs,
}

impl<'a> Files<'a> {
    /// Opens those of a run that goes on from where `trainer` stands.
    pub(super) fn open(folder: Option<&'a RunFolder>, trainer: &Trainer) -> Result<Self> {
        let open = |folder: &'a RunFolder| -> Result<Open<'a>> {
            let metrics = MetricsFile::open(folder.metrics(), trainer.progress.step)?;
            Ok(Open { folder, metrics, logs: Logs::open(folder, &trainer.config)? })
        };
        Ok(Self(folder.map(open).transpose()?))
    }

    /// The folder of the run, in words.
    pub(super) fn place(&self) -> String {
        self.0.as_ref().map_or_else(String::new, |open| open.folder.path().display().to_string())
    }

    /// The evaluation before the first step of a resumed run, where there was one.
    pub(super) fn read_before(&self) -> Result<Option<Evaluation>> {
        let Some(Open { folder, .. }) = &self.0 else { return Ok(None) };
        let read = || serde_json::from_str(&read_text(&folder.before())?).context("before.json");
        folder.before().exists().then(read).transpose()
    }

    pub(super) fn keep_before(&self, evaluation: &Evaluation) -> Result<()> {
        let Some(Open { folder, .. }) = &self.0 else { return Ok(()) };
        write_file(&folder.before(), &serde_json::to_vec(evaluation)?)
    }

    pub(super) fn keep_after(&self, evaluation: &Evaluation) -> Result<()> {
        let Some(Open { folder, .. }) = &self.0 else { return Ok(()) };
        write_file(&folder.after(), &serde_json::to_vec(evaluation)?)
    }

    /// An evaluation with its completions, so that two can be compared problem by problem.
    pub(super) fn keep_eval(&self, step: u64, evaluation: Option<&Evaluation>) -> Result<()> {
        let (Some(Open { folder, .. }), Some(evaluation)) = (&self.0, evaluation) else { return Ok(()) };
        write_file(&folder.eval(step), &serde_json::to_vec(evaluation)?).context("cannot write the held-out evaluation")
    }

    /// The rollouts of the step just done, where they are kept, and a group of them for who watches.
    pub(super) fn keep_rollouts(&self, trainer: &Trainer, step: u64, groups: &[Group]) -> Result<()> {
        let Some(Open { folder, .. }) = &self.0 else { return Ok(()) };
        let (every, token_groups) = (trainer.config.save.rollouts_every, trainer.config.log.token_groups);
        let saving =
            rollouts::Saving { judge: trainer.rollouts().judge, tokenizer: &trainer.policy.tokenizer, token_groups };
        if every > 0 && (step - 1).is_multiple_of(every) {
            rollouts::write(folder, step, groups, saving)?;
        }
        rollouts::write_live(folder, step, groups, saving)
    }

    /// The record of step 0, which a run that was started twice has already.
    pub(super) fn begin(&mut self, record: &Record) -> Result<()> {
        let empty = self.0.as_ref().is_some_and(|open| open.metrics.is_empty());
        if empty { self.append(record) } else { Ok(()) }
    }

    pub(super) fn append(&mut self, record: &Record) -> Result<()> {
        let Some(Open { metrics, logs, .. }) = &mut self.0 else { return Ok(()) };
        metrics.append(record)?;
        logs.append(record)
    }

    /// A checkpoint, behind the metrics that it counts on; all ranks take part in it.
    pub(super) fn save(&self, trainer: &Trainer) -> Result<()> {
        let Some(Open { folder, metrics, .. }) = &self.0 else { return state::save(trainer, None) };
        metrics.sync()?;
        state::save(trainer, Some(folder))
    }

    /// Whether this rank keeps them.
    pub(super) fn are_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Says that the run is over.
    pub(super) fn finish(&mut self) -> Result<()> {
        let Some(Open { logs, .. }) = &mut self.0 else { return Ok(()) };
        std::mem::take(logs).finish()
    }
}
