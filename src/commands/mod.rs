//! The command line: one file for each subcommand, all thin: wire parts, call the library.

mod alike;
mod analyze;
mod arguments;
pub mod bench;
mod builtin;
mod changes;
mod completions;
mod compute;
mod config;
mod data;
mod doctor;
mod eval;
mod experiment;
mod export;
mod launch;
mod machine;
mod man;
mod memory;
mod metrics;
mod pipeline;
mod plan;
mod policies;
mod report;
mod sample;
mod scaling;
#[cfg(feature = "serve")]
mod serve;
mod sft;
mod signals;
mod summary;
mod traces;
mod train;
mod verify;
#[cfg(feature = "watch")]
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use reckon_rewards::{Registry, Rubric};
use tokenizers::Tokenizer;

use crate::config::TrainConfig;
use crate::disk::read_text;
use crate::hub::{self, Wanted};
use crate::judge::Judge;
use crate::model::files::folder::{ModelFolder, parse_tokenizer, read_shape};
use crate::model::{Companions, ModelConfig};
use crate::output::{Closed, note};
use crate::prompt::{PromptSource, Window};
use crate::ranks::{self, Told};
use crate::strict;

/// Trains language models to reason: sampler, verifiers and GRPO in one binary.
#[derive(Debug, Parser)]
#[command(name = "reckon", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reinforcement learning; without a config, the embedded countdown run.
    Train(train::Args),
    /// Supervised steps: base models from random weights, cold starts.
    Sft(sft::Args),
    /// Completions of a teacher that verifiers pass, for a student to learn from.
    Traces(traces::Args),
    /// Stages one after the other, each begun with what an earlier one made.
    Pipeline(pipeline::Args),
    /// Held-out accuracy of a model.
    Eval(eval::Args),
    /// Arms by seeds from one file, and what came of them.
    Experiment(experiment::Args),
    /// What a run's rollouts show: behaviours, reflection, repetition, pass@k.
    Analyze(analyze::Args),
    /// Completions of prompts from the command line or a file.
    Sample(sample::Args),
    /// Judge completions without a model.
    Verify(verify::Args),
    /// Look at the data of a config: whether it can be used, and what prompts it makes.
    Data(data::Args),
    /// A trained model as a folder that other programs load.
    Export(export::Args),
    /// The memory of a run, and settings that make it fit.
    Plan(plan::Args),
    /// Runs as one page: charts, rollouts, figures with intervals; also as text, CSV, SVG.
    Report(report::Args),
    /// A run that goes on, in the terminal.
    #[cfg(feature = "watch")]
    Watch(watch::Args),
    /// What the numbers in a run's `metrics.jsonl` are.
    Metrics(metrics::Args),
    /// Speed of sampling and update on the common job.
    Bench(bench::Args),
    /// Every key of a config, with its default and its meaning.
    Config(config::Args),
    /// A model behind OpenAI's protocol.
    #[cfg(feature = "serve")]
    Serve(serve::Args),
    /// A run as what a cluster takes: a script of Slurm, or a manifest of Kubernetes.
    Launch(launch::Args),
    /// What this binary and this machine can do.
    Doctor(doctor::Args),
    /// A script that lets a shell complete this command line.
    Completions(completions::Args),
    /// The manual, a page for each subcommand.
    Man(man::Args),
}

/// A whole program: parses the command line, runs the subcommand with the verifiers of `registry` beside the built-in
/// ones, and prints the chain of causes of an error. The code is 0 for success, also where nobody reads the output to
/// its end, and 1 for failure; wrong usage ends the process with 2 at once. It is also the helper that runs programs in
/// a sandbox, so it is called before there are threads.
pub fn main(registry: &Registry) -> ExitCode {
    if let Some(code) = reckon_rewards::sandbox::helper() {
        return code;
    }
    let matches = arguments::with_negative_numbers(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match cli.run(registry) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Closed>() => ExitCode::SUCCESS,
        Err(error) if error.is::<Told>() => ExitCode::FAILURE,
        Err(error) => {
            note!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Cli {
    /// Runs the subcommand, with the verifiers of `registry` beside the built-in ones.
    pub fn run(self, registry: &Registry) -> Result<()> {
        if !matches!(self.command, Command::Train(_) | Command::Doctor(_)) {
            refuse_ranks()?;
        }
        match self.command {
            Command::Train(args) => train::run(args, registry),
            Command::Sft(args) => sft::run(args, registry),
            Command::Traces(args) => traces::run(args, registry),
            Command::Pipeline(args) => pipeline::run(args, registry),
            Command::Eval(args) => eval::run(args, registry),
            Command::Experiment(args) => experiment::run(args, registry),
            Command::Analyze(args) => analyze::run(args, registry),
            Command::Sample(args) => sample::run(args),
            Command::Verify(args) => verify::run(args, registry),
            Command::Data(args) => data::run(args, registry),
            Command::Export(args) => export::run(args),
            Command::Plan(args) => plan::run(args),
            Command::Report(args) => report::run(&args),
            #[cfg(feature = "watch")]
            Command::Watch(args) => watch::run(&args),
            Command::Metrics(args) => metrics::run(&args),
            Command::Bench(args) => bench::run(args),
            Command::Config(args) => config::run(args),
            #[cfg(feature = "serve")]
            Command::Serve(args) => serve::run(args),
            Command::Launch(args) => launch::run(&args),
            Command::Doctor(args) => doctor::run(args),
            Command::Completions(args) => completions::run(&args),
            Command::Man(args) => man::run(&args),
        }
    }
}

/// Refuses several processes that would all do the same.
fn refuse_ranks() -> Result<()> {
    let Some(launched) = ranks::launch::read(|name| std::env::var(name).ok())? else { return Ok(()) };
    bail!(
        "{} ranks, started by {}: `reckon train` alone shares its work; start one process",
        launched.place.size,
        launched.by.name()
    )
}

/// The run that a command is about.
#[derive(Debug, clap::Args)]
struct ConfigArgs {
    /// TOML config of `reckon train`; that of the embedded countdown run without it.
    config: Option<PathBuf>,
    /// Override a key, such as `--set optim.lr=1e-4`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

impl ConfigArgs {
    /// The text of the config, and what errors call it.
    fn text(&self) -> Result<(String, String)> {
        match &self.config {
            Some(path) => Ok((config_text(path)?, path.display().to_string())),
            None => Ok((builtin::CONFIG.to_owned(), "the embedded config".to_owned())),
        }
    }

    /// The config with some keys overridden.
    fn load(&self) -> Result<TrainConfig> {
        let (text, source) = self.text()?;
        strict::load(&text, &source, &self.sets)
    }
}

/// The text of a config that the user names.
fn config_text(path: &Path) -> Result<String> {
    let shown = path.display();
    ensure!(path.exists(), "there is no config {shown}: check the path; `reckon config` says what goes into one");
    ensure!(
        !path.is_dir(),
        "{shown} is a folder: name a config in it, such as {shown}/config.toml; `reckon train --resume` goes on with a run"
    );
    read_text(path)
}

/// The config of the run in a folder.
fn config_of_run(run: &Path) -> Result<TrainConfig> {
    let path = run.join("config.toml");
    ensure!(path.is_file(), "there is no run in {}: name a folder with a config.toml", run.display());
    strict::load(&read_text(&path)?, &path.display().to_string(), &[])
}

/// A model folder, one of the hub, or the one in the binary.
fn load_model(path: &str) -> Result<ModelFolder> {
    if path == builtin::MODEL { builtin::model() } else { ModelFolder::read(&hub::model_path(path, Wanted::All)?) }
}

/// The shape of a model, without its weights.
fn load_shape(path: &str) -> Result<ModelConfig> {
    if path == builtin::MODEL {
        return Ok(builtin::model()?.config);
    }
    read_shape(&hub::model_path(path, Wanted::Small)?)
}

/// The files beside a model's weights.
fn load_companions(path: &str) -> Result<Companions> {
    if path == builtin::MODEL {
        return Ok(Companions::default());
    }
    Companions::read(&hub::model_path(path, Wanted::Small)?)
}

/// The tokenizer of a run's model and the run's prompts, without the weights.
fn open_prompts(config: &TrainConfig) -> Result<(Tokenizer, PromptSource)> {
    let path = config.model.name();
    let companions = load_companions(&path)?;
    let tokenizer = match companions.file("tokenizer.json") {
        Some(bytes) => parse_tokenizer(bytes).with_context(|| format!("{path}/tokenizer.json"))?,
        None if path == builtin::MODEL => builtin::model()?.tokenizer,
        None => bail!("there is no tokenizer.json in {path}"),
    };
    let window = Window::of(config, &load_shape(&path)?);
    let prompts = PromptSource::open(&config.sources()?, tokenizer.clone(), &companions, config.seed, window)?;
    prompts.dropped().iter().for_each(|line| note!("{line}"));
    Ok((tokenizer, prompts))
}

/// A rubric for each source of the run's data.
fn judge(config: &TrainConfig, registry: &Registry) -> Result<Judge> {
    let sources = config.sources()?.into_iter().chain(config.eval_sources());
    let rubrics = sources.map(|source| Ok(Rubric::from_config_with(source.rubric, registry)?));
    Judge::new(rubrics.collect::<Result<_>>()?)
}
