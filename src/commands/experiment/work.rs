//! What an experiment consists of: base models, each made by supervised steps, and arms by seeds, each a run of its own. What
//! is finished on disk is left alone, and what is not goes on from its last checkpoint; neither may have been made by
//! another config.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use reckon_rewards::Registry;

use super::super::{config_text, sft, train};
use crate::checkpoint::latest;
use crate::config::{ArmConfig, BaseConfig, ExperimentConfig, SftConfig, SftModel, TrainConfig};
use crate::disk::{read_text, write_file};
use crate::progress::Bar;
use crate::run;
use crate::strict;

/// An experiment and where it lies.
pub(super) struct Experiment<'a> {
    pub(super) config: ExperimentConfig,
    /// The folder of its file, which the paths in it are relative to.
    pub(super) folder: PathBuf,
    /// Where models, runs and report go.
    pub(super) out: PathBuf,
    pub(super) registry: &'a Registry,
    pub(super) at_a_time: usize,
}

/// A base to be made, or a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// By its place among the bases.
    Base(usize),
    /// By its place among the arms, and its seed.
    Arm { arm: usize, seed: u64 },
}

/// A piece of work.
pub(super) struct Job {
    /// What people see.
    pub(super) label: String,
    /// Its steps.
    pub(super) steps: u64,
    /// The job that comes before it.
    pub(super) needs: Option<usize>,
    pub(super) kind: Kind,
}

impl Experiment<'_> {
    /// All work: bases first, then arms, those of the first seed before those of the next, so that what was stopped early
    /// can be compared. Every config is read here, so that a mistake shows before an hour is spent.
    pub(super) fn jobs(&self) -> Result<Vec<Job>> {
        let place = |name: &Option<String>| {
            name.as_ref().and_then(|name| self.config.bases.iter().position(|b| b.name == *name))
        };
        let mut jobs = Vec::new();
        for (index, base) in self.config.bases.iter().enumerate() {
            let steps = self.sft_config(base)?.steps.unwrap_or(0);
            let (label, needs) = (format!("base {}", base.name), place(&base.from));
            jobs.push(Job { label, steps, needs, kind: Kind::Base(index) });
        }
        for &seed in &self.config.seeds {
            for (index, arm) in self.config.arms.iter().enumerate() {
                let steps = self.train_config(arm, seed)?.steps;
                let (label, needs) = (format!("{} {seed}", arm.name), place(&arm.base));
                jobs.push(Job { label, steps, needs, kind: Kind::Arm { arm: index, seed } });
            }
        }
        Ok(jobs)
    }

    /// Does a job; whether it came to its end.
    pub(super) fn work(&self, kind: &Kind, stop: &AtomicBool, bar: Bar) -> Result<bool> {
        match *kind {
            Kind::Base(index) => self.make_base(&self.config.bases[index], stop, bar),
            Kind::Arm { arm, seed } => self.run_arm(&self.config.arms[arm], seed, stop, bar),
        }
    }

    /// The folder of all runs.
    pub(super) fn arms(&self) -> PathBuf {
        self.out.join("arms")
    }

    /// The folder of a run.
    pub(super) fn run_folder(&self, arm: &ArmConfig, seed: u64) -> PathBuf {
        self.arms().join(&arm.name).join(format!("seed-{seed}"))
    }

    /// The configs of all arms with the first seed.
    pub(super) fn train_configs(&self) -> Result<Vec<TrainConfig>> {
        let seed = self.config.seeds.first().copied().unwrap_or_default();
        self.config.arms.iter().map(|arm| self.train_config(arm, seed)).collect()
    }

    fn base_folder(&self, name: &str) -> PathBuf {
        self.out.join("bases").join(name)
    }

    /// Threads of a run, under what the experiment itself says.
    fn threads(&self) -> Vec<String> {
        if self.at_a_time > 1 { vec!["compute.threads=1".to_owned()] } else { Vec::new() }
    }

    fn sft_config(&self, base: &BaseConfig) -> Result<SftConfig> {
        let path = self.folder.join(&base.sft);
        let sets = [self.threads(), base.set.clone()].concat();
        let mut config: SftConfig = strict::load(&config_text(&path)?, &path.display().to_string(), &sets)?;
        if let Some(from) = &base.from {
            config.model = SftModel { path: Some(self.base_folder(from)), ..SftModel::default() };
        }
        Ok(config)
    }

    fn train_config(&self, arm: &ArmConfig, seed: u64) -> Result<TrainConfig> {
        let path = self.folder.join(&self.config.train);
        let mut sets = [self.threads(), self.config.set.clone(), arm.set.clone()].concat();
        sets.push(format!("seed={seed}"));
        let source = format!("{} of arm {:?}", path.display(), arm.name);
        let mut config: TrainConfig = strict::load(&config_text(&path)?, &source, &sets)?;
        if let Some(base) = &arm.base {
            config.model.path = self.base_folder(base).to_string_lossy().into_owned();
            config.model.revision = None;
        }
        config.validate().with_context(|| source.clone())?;
        Ok(config)
    }

    fn make_base(&self, base: &BaseConfig, stop: &AtomicBool, bar: Bar) -> Result<bool> {
        let (config, folder) = (self.sft_config(base)?, self.base_folder(&base.name));
        // The config is written first and the model last, so that a model that is there was made to its end.
        let made_by = folder.with_extension("toml");
        if made_by.exists() {
            let was: SftConfig = strict::load(&read_text(&made_by)?, &made_by.display().to_string(), &[])?;
            check_same(&strict::flat(&was)?, &strict::flat(&config)?, &folder)?;
        }
        let begun = folder.join("config.toml").exists();
        let newest = latest(&folder.join("checkpoints"))?.map(|(step, _)| step);
        if newest.is_some() && newest == config.steps && folder.join("config.json").exists() {
            bar.finish("made before");
            return Ok(true);
        }
        std::fs::create_dir_all(folder.parent().unwrap_or(Path::new(".")))?;
        write_file(&made_by, strict::print(&config)?.as_bytes())?;
        let (mut run, folder) = match begun {
            true => sft::resume(folder, &[], self.registry)?,
            false => sft::start(config, folder, self.registry)?,
        };
        run.run(&folder, stop, bar)
    }

    fn run_arm(&self, arm: &ArmConfig, seed: u64, stop: &AtomicBool, bar: Bar) -> Result<bool> {
        let (mut config, path) = (self.train_config(arm, seed)?, self.run_folder(arm, seed));
        let begun = path.join("config.toml");
        let (mut trainer, folder) = if begun.exists() {
            let was: TrainConfig = strict::load(&read_text(&begun)?, &begun.display().to_string(), &[])?;
            check_same(&strict::flat(&was)?, &strict::flat(&config)?, &path)?;
            if is_over(&path, config.steps)? {
                bar.finish("done before");
                return Ok(true);
            }
            let train::Resumed { trainer, folder, how } = train::resume(path, &[], self.registry)?;
            bar.line(&how);
            (trainer, folder)
        } else {
            config.begin_on(&jiff::Zoned::now().date().to_string());
            train::start(config, path, self.registry)?
        };
        Ok(run::run(&mut trainer, Some(&folder), stop, bar)?.is_some())
    }
}

/// Whether a run has been evaluated after its last step.
fn is_over(path: &Path, steps: u64) -> Result<bool> {
    let newest = latest(&path.join("checkpoints"))?.map(|(step, _)| step);
    Ok(newest == Some(steps) && path.join("after.json").exists())
}

/// The evaluations before and after a run that is over.
pub(super) fn outcome(path: &Path) -> Result<Option<run::Outcome>> {
    let folder = |name: &str| path.join(name);
    if !folder("after.json").exists() {
        return Ok(None);
    }
    let read = |name: &str| serde_json::from_str(&read_text(&folder(name))?).context(name.to_owned());
    Ok(Some(run::Outcome { before: read("before.json")?, after: read("after.json")? }))
}

/// Refuses to go on with what another config made. What decides neither what is learned nor for how long may differ.
fn check_same(was: &BTreeMap<String, String>, now: &BTreeMap<String, String>, folder: &Path) -> Result<()> {
    const FREE: [&str; 6] = [
        "model.path",
        "prompt.date",
        "rollout.capacity",
        "compute.threads",
        "compute.micro_batch_tokens",
        "compute.recompute",
    ];
    let free = |key: &str| FREE.contains(&key) || key.ends_with(".prompt.date");
    let keys = was.keys().chain(now.keys()).filter(|key| !free(key));
    for key in keys {
        if was.get(key) != now.get(key) {
            let shown = |value: Option<&String>| value.cloned().unwrap_or_else(|| "absent".to_owned());
            bail!(
                "{} was made with {key} = {} and this experiment has {}: give --out another folder, or remove that one",
                folder.display(),
                shown(was.get(key)),
                shown(now.get(key))
            );
        }
    }
    Ok(())
}
