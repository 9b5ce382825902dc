//! `reckon pipeline`: the stages of a file one after the other, as the four of DeepSeek-R1 (arXiv:2501.12948, section 2.3)
//! are. A stage that is over is not run again, one that was interrupted goes on, so the same command resumes the whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use reckon_rewards::Registry;
use serde::{Deserialize, Serialize};

use super::{config_text, sft, signals, traces, train};
use crate::checkpoint;
use crate::config::{HERE, PipelineConfig, SftConfig, StageConfig, StageKind, TracesConfig, TrainConfig};
use crate::disk::{read_text, write_file};
use crate::metrics::{self, Record};
use crate::output::{note, say};
use crate::progress::Bar;
use crate::run;
use crate::strict;

/// Arguments of `reckon pipeline`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// TOML file of stages.
    file: PathBuf,
    /// Folder of the stages; a pipeline that was interrupted goes on in it.
    #[arg(long)]
    out: PathBuf,
}

/// What is known of a stage that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Over {
    name: String,
    kind: StageKind,
    /// What it made.
    made: PathBuf,
    /// Seconds of the call that ended it.
    seconds: f64,
    /// Lines for the report.
    found: Vec<String>,
}

/// The file of what is over.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    /// The text of the pipeline's file.
    file: String,
    over: Vec<Over>,
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    let text = config_text(&args.file)?;
    let config: PipelineConfig = strict::load(&text, &args.file.display().to_string(), &[])?;
    config.validate()?;
    fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    let pipeline = Pipeline { args: &args, registry, stop: &*signals::stop_flag()? };
    let mut state = pipeline.state(&text)?;
    for (number, stage) in config.stages.iter().enumerate().skip(state.over.len()) {
        note!("stage {} of {}: {}", number + 1, config.stages.len(), stage.name);
        let start = Instant::now();
        let Some((made, found)) = pipeline.stage(number, stage, &state.over)? else {
            note!("stage {} is saved; the same command goes on", stage.name);
            return Ok(());
        };
        let (name, kind, seconds) = (stage.name.clone(), stage.kind, start.elapsed().as_secs_f64());
        state.over.push(Over { name, kind, made, seconds, found });
        write_file(&pipeline.file(), &serde_json::to_vec_pretty(&state)?)?;
    }
    let report = report(&state);
    write_file(&args.out.join("report.md"), report.as_bytes())?;
    say!("{}", report.trim_end())
}

/// A pipeline under way.
struct Pipeline<'a> {
    args: &'a Args,
    registry: &'a Registry,
    stop: &'a AtomicBool,
}

impl Pipeline<'_> {
    fn file(&self) -> PathBuf {
        self.args.out.join("pipeline.json")
    }

    /// What is over. A file of stages that was changed meanwhile is refused.
    fn state(&self, text: &str) -> Result<State> {
        let path = self.file();
        if !path.exists() {
            return Ok(State { file: text.to_owned(), over: Vec::new() });
        }
        let state: State =
            serde_json::from_str(&read_text(&path)?).with_context(|| format!("{} is damaged", path.display()))?;
        ensure!(
            state.file == text,
            "{} was changed since its stages were begun in {}: put it back, or give --out another name",
            self.args.file.display(),
            self.args.out.display()
        );
        Ok(state)
    }

    /// Runs a stage to its end; `None` where it was asked to stop before.
    fn stage(&self, number: usize, stage: &StageConfig, over: &[Over]) -> Result<Option<(PathBuf, Vec<String>)>> {
        let (text, source, sets) = self.config(stage, over)?;
        let folder = self.args.out.join(format!("{}-{}", number + 1, stage.name));
        let begun = folder.join("config.toml").exists();
        let run = || match stage.kind {
            StageKind::Sft => self.sft(strict::load(&text, &source, &sets)?, folder, begun),
            StageKind::Train => self.train(strict::load(&text, &source, &sets)?, folder, begun),
            StageKind::Traces => self.traces(&strict::load(&text, &source, &sets)?, &folder),
        };
        run().with_context(|| format!("stage {:?}", stage.name))
    }

    /// The text of a stage's config, its name, and its overrides with what earlier stages made.
    fn config(&self, stage: &StageConfig, over: &[Over]) -> Result<(String, String, Vec<String>)> {
        let here = self.args.file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let path = here.join(&stage.config);
        let filled = |set: &String| {
            let set = set.replace(&format!("{{{HERE}}}"), &here.to_string_lossy());
            over.iter()
                .fold(set, |set, stage| set.replace(&format!("{{{}}}", stage.name), &stage.made.to_string_lossy()))
        };
        Ok((config_text(&path)?, path.display().to_string(), stage.set.iter().map(filled).collect()))
    }

    fn sft(&self, mut config: SftConfig, folder: PathBuf, begun: bool) -> Result<Option<(PathBuf, Vec<String>)>> {
        config.begin_on(&jiff::Zoned::now().date().to_string());
        let (mut run, folder) = match begun {
            true => sft::resume(folder, &[], self.registry)?,
            false => sft::start(config, folder, self.registry)?,
        };
        let bar = Bar::new(run.steps, "sft");
        let over = run.run(&folder, self.stop, bar)?;
        let found = lines(&metrics::read(&folder.metrics())?, &["sft/loss", "sft/held_out_loss", "eval/pass@1"]);
        Ok(over.then(|| (folder.path().to_owned(), found)))
    }

    fn train(&self, mut config: TrainConfig, folder: PathBuf, begun: bool) -> Result<Option<(PathBuf, Vec<String>)>> {
        config.begin_on(&jiff::Zoned::now().date().to_string());
        let (mut trainer, folder) = match begun {
            true => {
                let train::Resumed { trainer, folder, how } = train::resume(folder, &[], self.registry)?;
                note!("{how}");
                (trainer, folder)
            }
            false => train::start(config, folder, self.registry)?,
        };
        let bar = Bar::new(trainer.config.steps, "train");
        run::run(&mut trainer, Some(&folder), self.stop, bar)?;
        let names = ["reward/mean", "completion/len_mean", "eval/pass@1", "eval/len_mean"];
        let found = lines(&metrics::read(&folder.metrics())?, &names);
        let last = checkpoint::latest(&folder.checkpoints())?.context("the run left no checkpoint")?.1;
        Ok((trainer.progress.step == trainer.config.steps).then_some((last, found)))
    }

    fn traces(&self, config: &TracesConfig, folder: &Path) -> Result<Option<(PathBuf, Vec<String>)>> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let out = folder.join("traces.jsonl");
        // Written and not yet known to be over: a kill came between.
        if out.exists() && !traces::progress_file(&out).exists() {
            fs::remove_file(&out).with_context(|| format!("cannot remove {}", out.display()))?;
        }
        let counts = traces::collect(config, &out, self.registry, self.stop);
        if self.stop.load(Ordering::Relaxed) && counts.is_err() {
            return Ok(None);
        }
        Ok(Some((out, counts?.lines())))
    }
}

/// The first and the last value of metrics, as far as there are some.
fn lines(records: &[Record], names: &[&str]) -> Vec<String> {
    let line = |name: &&str| {
        let values: Vec<(u64, f64)> = records.iter().filter_map(|r| Some((r.step, r.get(name)?))).collect();
        let ((first, from), (last, to)) = (values.first()?, values.last()?);
        Some(format!("{name}: {from:.3} at step {first}, {to:.3} at step {last}"))
    };
    names.iter().filter_map(line).collect()
}

/// All stages on a page.
fn report(state: &State) -> String {
    let mut text = "# Stages\n".to_owned();
    for Over { name, kind, made, seconds, found } in &state.over {
        let kind = format!("{kind:?}").to_lowercase();
        text += &format!("\n## {name} ({kind}, {seconds:.0} s)\n\n");
        found.iter().for_each(|line| text += &format!("- {line}\n"));
        text += &format!("- made {}\n", made.display());
    }
    text
}
