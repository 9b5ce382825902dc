//! A supervised run from its first step to its last: steps, the loss on held-out rows, accuracy by sampling, metrics and
//! checkpoints on disk, resume, and an end when one is asked for.
//!
//! The folder of a run is a model folder too: the model as it was saved last lies beside checkpoints and metrics.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{SftReport, SftSample, SftSource, SftTrainer};
use crate::behaviours::Behaviours;
use crate::checkpoint::state::{Saved, Snapshot};
use crate::checkpoint::{RunFolder, prune};
use crate::config::SftConfig;
use crate::disk::put_files;
use crate::eval::evaluate;
use crate::groups::Rollouts;
use crate::judge::Judge;
use crate::metrics::{self, MetricsFile, Record};
use crate::progress::{Bar, curve};
use crate::prompt::PromptSource;
use crate::rollout::{LocalSampler, Sampling};

/// What of a run changes beside weights and optimizer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SftProgress {
    /// Steps done.
    pub step: u64,
    /// Rows used.
    pub used: u64,
    /// Updates skipped in a row because a gradient was not finite.
    pub skipped: u64,
    /// Version of the policy after the last step.
    pub policy_version: u64,
}

/// What held-out accuracy is measured by.
pub struct Accuracy {
    /// The questions.
    pub prompts: PromptSource,
    /// What judges.
    pub judge: Judge,
    /// How completions are sampled.
    pub sampling: Sampling,
    /// Most rows sampled at a time.
    pub capacity: usize,
    /// Questions asked, and completions of each.
    pub size: (usize, usize),
}

/// A run with all that belongs to it.
pub struct SftRun {
    /// The resolved config.
    pub config: SftConfig,
    /// Steps of the run.
    pub steps: u64,
    /// The policy and its updates.
    pub trainer: SftTrainer,
    /// The samples.
    pub source: SftSource,
    /// Held-out accuracy, where it is asked for.
    pub accuracy: Option<Accuracy>,
    /// Samples that are held out.
    held_out: Vec<SftSample>,
}

impl SftRun {
    /// A run at its beginning.
    pub fn new(config: SftConfig, trainer: SftTrainer, source: SftSource, accuracy: Option<Accuracy>) -> Result<Self> {
        let (steps, held_out) = (source.steps(&config)?, source.held_out(config.eval.rows)?);
        Ok(Self { config, steps, trainer, source, accuracy, held_out })
    }

    /// Puts the newest checkpoint of a run in place; returns false where there is none yet.
    pub fn restore(&mut self, folder: &RunFolder) -> Result<bool> {
        let Some(saved) = Saved::<SftProgress>::newest(folder)? else { return Ok(false) };
        saved.check_data(self.source.fingerprints())?;
        let model = self.config.model.path.as_ref().map_or("model.shape".into(), |path| path.display().to_string());
        let SftProgress { step, used, skipped, policy_version } = saved.restore(&mut self.trainer.policy, &model)?;
        (self.trainer.step, self.trainer.skipped, self.trainer.policy.version) = (step, skipped, policy_version);
        self.source.used = used;
        Ok(true)
    }

    /// Where the run stands.
    pub fn progress(&self) -> SftProgress {
        let SftTrainer { policy, step, skipped, .. } = &self.trainer;
        SftProgress { step: *step, used: self.source.used, skipped: *skipped, policy_version: policy.version }
    }

    /// Saves all that a resumed run needs.
    pub fn save(&self, folder: &RunFolder) -> Result<()> {
        let (policy, progress, config) = (&self.trainer.policy, &self.progress(), &self.config);
        let data = self.source.fingerprints();
        Snapshot { policy, progress, config, data, next: None }.save(folder, progress.step)?;
        prune(&folder.checkpoints(), config.keep_last, None)
    }

    /// Trains until the last step, or until `stop` is set: the step is finished then, and saved. Says whether it is over.
    pub fn run(&mut self, folder: &RunFolder, stop: &AtomicBool, bar: Bar) -> Result<bool> {
        let mut metrics = MetricsFile::open(folder.metrics(), self.trainer.step)?;
        if self.trainer.step == 0 {
            self.begin(folder, &mut metrics, &bar)?;
        }
        let mut saved = self.trainer.step;
        while self.trainer.step < self.steps && !stop.load(Ordering::Relaxed) {
            let mut record = self.step()?;
            let step = self.trainer.step;
            let due = |every: u64| step.is_multiple_of(every) || step == self.steps;
            if due(self.config.eval.every) {
                self.evaluate(&mut record, &bar)?;
            }
            bar.tick(step, &summary(&record), &details(&record));
            metrics.append(&record)?;
            if due(self.config.save_every) || stop.load(Ordering::Relaxed) {
                metrics.sync()?;
                self.save(folder)?;
                saved = step;
            }
        }
        if saved != self.trainer.step {
            self.save(folder)?;
        }
        put_files(folder.path(), |path| self.trainer.policy.save(path, self.config.dtype))?;
        let (step, used) = (self.trainer.step, self.source.used);
        let epochs = self.source.epochs().map_or(String::new(), |epochs| format!(" ({epochs:.2} passes)"));
        curves(folder, &bar)?;
        bar.finish(&format!("{step} steps, {used} rows seen{epochs}; model in {}", folder.path().display()));
        Ok(step == self.steps)
    }

    /// What precedes step 1.
    fn begin(&mut self, folder: &RunFolder, metrics: &mut MetricsFile, bar: &Bar) -> Result<()> {
        self.source.remarks().iter().for_each(|line| bar.line(line));
        let mut record = Record::new(0);
        self.evaluate(&mut record, bar)?;
        if metrics.is_empty() {
            metrics.append(&record)?;
        }
        self.save(folder)
    }

    /// One step, with its metrics.
    fn step(&mut self) -> Result<Record> {
        let start = Instant::now();
        let samples = self.source.batch()?;
        let step = self.trainer.step + 1;
        let report = self.trainer.step(&samples).with_context(|| format!("step {step}"))?;
        let SftReport { loss, grad_norm, lr, targets, tokens } = report;
        let mut record = Record::new(step);
        let step_s = start.elapsed().as_secs_f64();
        for (name, value) in [
            ("sft/loss", loss),
            ("sft/trained_tokens", targets as f64),
            ("sft/samples", samples.len() as f64),
            ("optim/grad_norm", grad_norm),
            ("optim/lr", lr),
            ("time/step_s", step_s),
            ("speed/sft_tokens_per_s", tokens as f64 / step_s.max(1e-9)),
        ] {
            record.set(name, value);
        }
        if let Some(epochs) = self.source.epochs() {
            record.set("sft/epochs", epochs);
        }
        Ok(record)
    }

    /// Held-out loss and accuracy, on a record and on a line.
    fn evaluate(&self, record: &mut Record, bar: &Bar) -> Result<()> {
        let mut told = Vec::new();
        if !self.held_out.is_empty() {
            let loss = self.trainer.loss(&self.held_out)?;
            record.set("sft/held_out_loss", loss);
            told.push(format!("loss {loss:.4}"));
        }
        if let Some(Accuracy { prompts, judge, sampling, capacity, size: (problems, samples) }) = &self.accuracy {
            let sampler = LocalSampler { capacity: *capacity };
            let (policy, behaviours) = (&self.trainer.policy, &Behaviours::default());
            let (environment, ranks, routed) = (None, None, false);
            let rollouts =
                Rollouts { policy, sampler: &sampler, judge, sampling, behaviours, environment, ranks, routed };
            let found = evaluate(rollouts, prompts.held_out(*problems)?, *samples)?;
            found.record(record);
            told.push(format!("accuracy {found}"));
        }
        if !told.is_empty() {
            bar.line(&format!("step {}: held-out {}", self.trainer.step, told.join(", ")));
        }
        Ok(())
    }
}

fn summary(record: &Record) -> String {
    let held_out = record.get("sft/held_out_loss").map_or(String::new(), |loss| format!("  held-out {loss:.4}"));
    format!("loss {:.4}{held_out}", record.get("sft/loss").unwrap_or(f64::NAN))
}

fn details(record: &Record) -> String {
    let get = |name: &str| record.get(name).unwrap_or(0.0);
    let (norm, lr, speed) = (get("optim/grad_norm"), get("optim/lr"), get("speed/sft_tokens_per_s"));
    format!("grad norm {norm:.3}  lr {lr:.2e}  {speed:.0} tok/s")
}

/// The curves of the whole run, for a person at a terminal.
fn curves(folder: &RunFolder, bar: &Bar) -> Result<()> {
    let records = metrics::read(&folder.metrics())?;
    for (label, name) in [("loss", "sft/loss"), ("held-out", "sft/held_out_loss"), ("accuracy", "eval/pass@1")] {
        let values: Vec<f64> = records.iter().filter_map(|record| record.get(name)).collect();
        if let (Some(first), Some(last), true) = (values.first(), values.last(), values.len() > 1) {
            bar.line(&format!("{label:<9} {first:.4} {} {last:.4}", curve(&values, 40)));
        }
    }
    Ok(())
}
