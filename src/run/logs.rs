//! The metrics of a run in the files of other programs, as `[log]` asks for them. Both files follow from
//! `metrics.jsonl`: a resumed run writes them anew from the records that stay, and goes on.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use reckon_lab::log::{TensorBoard, Wandb, WandbRun, run_id};

use crate::checkpoint::RunFolder;
use crate::config::TrainConfig;
use crate::metrics::{self, Record};
use crate::strict;

/// The files that a run writes to.
#[derive(Default)]
pub(super) struct Logs {
    tensorboard: Option<TensorBoard>,
    wandb: Option<Wandb>,
}

impl Logs {
    /// Opens what the config asks for, with the records that the run has.
    pub(super) fn open(folder: &RunFolder, config: &TrainConfig) -> Result<Self> {
        let log = &config.log;
        if !log.tensorboard && !log.wandb {
            return Ok(Self::default());
        }
        let records = if folder.metrics().exists() { metrics::read(&folder.metrics())? } else { Vec::new() };
        // When earlier steps ended is known by how long they took.
        let seconds = |record: &Record| record.get("time/step_s").unwrap_or(0.0);
        let mut at = now() - records.iter().map(seconds).sum::<f64>();
        let mut logs = Self::default();
        if log.tensorboard {
            logs.tensorboard = Some(TensorBoard::create(&folder.path().join("tensorboard"), at)?);
        }
        if log.wandb {
            logs.wandb = Some(Wandb::create(&folder.path().join("wandb"), &identity(folder, config, at)?)?);
        }
        for record in &records {
            at += seconds(record);
            logs.append_at(record, at)?;
        }
        Ok(logs)
    }

    /// Writes the record of the step just done.
    pub(super) fn append(&mut self, record: &Record) -> Result<()> {
        self.append_at(record, now())
    }

    /// Says that the run is over.
    pub(super) fn finish(self) -> Result<()> {
        self.wandb.map_or(Ok(()), Wandb::finish)
    }

    fn append_at(&mut self, record: &Record, wall_time: f64) -> Result<()> {
        let values: Vec<(&str, f64)> = record.values().collect();
        if let Some(log) = &mut self.tensorboard {
            log.append(record.step, wall_time, &values)?;
        }
        if let Some(log) = &mut self.wandb {
            log.append(record.step, wall_time, &values)?;
        }
        Ok(())
    }
}

fn identity(folder: &RunFolder, config: &TrainConfig, started: f64) -> Result<WandbRun> {
    let path = folder.path().canonicalize()?;
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let moment = jiff::Timestamp::from_second(started as i64)?.to_zoned(jiff::tz::TimeZone::UTC);
    Ok(WandbRun {
        id: run_id(&[&path.to_string_lossy(), &config.seed.to_string(), &(started as u64).to_string()]),
        name,
        project: "reckon".to_owned(),
        stamp: moment.strftime("%Y%m%d_%H%M%S").to_string(),
        started,
        config: strict::print(config)?.parse()?,
    })
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |passed| passed.as_secs_f64())
}
