//! `reckon sft`: what a supervised run starts or goes on from; the run is [`crate::sft::run`].

use std::path::PathBuf;

use anyhow::{Result, bail};
use reckon_rewards::{Registry, Rubric};

use super::changes::check_changes;
use super::{compute, config_text, load_model, policies, signals};
use crate::checkpoint::RunFolder;
use crate::config::{SftConfig, SftModel};
use crate::disk::{read_text, write_file};
use crate::judge::Judge;
use crate::model::files::folder::{read_config, read_tokenizer};
use crate::model::{Companions, Layout, ModelFolder, Parameters, Weights};
use crate::output::note;
use crate::policy::Policy;
use crate::progress::Bar;
use crate::prompt::{PromptSource, Window};
use crate::sft::run::{Accuracy, SftRun};
use crate::sft::{SftSource, SftTrainer};
use crate::strict;

/// Arguments of `reckon sft`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// TOML config.
    #[arg(required_unless_present = "resume")]
    config: Option<PathBuf>,
    /// Override a key, such as `--set steps=100`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Folder of the run, which is the folder of the model too.
    #[arg(long, required_unless_present = "resume")]
    out: Option<PathBuf>,
    /// Continue the run in this folder, with its own config; `--set` changes keys of it from here on.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["config", "out"])]
    resume: Option<PathBuf>,
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    let (mut run, folder) = match (args.config, args.out, args.resume) {
        (Some(config), Some(out), _) => {
            let mut config: SftConfig =
                strict::load(&config_text(&config)?, &config.display().to_string(), &args.sets)?;
            config.begin_on(&jiff::Zoned::now().date().to_string());
            start(config, out, registry)?
        }
        (_, _, Some(folder)) => resume(folder, &args.sets, registry)?,
        _ => bail!("give a config and --out, or --resume"),
    };
    note!("{}", compute::place(&run.config.compute));
    let stop = signals::stop_flag()?;
    let bar = Bar::new(run.steps, "sft");
    run.run(&folder, &stop, bar).map(drop)
}

/// A new run, whose config is written into its folder.
pub(super) fn start(config: SftConfig, out: PathBuf, registry: &Registry) -> Result<(SftRun, RunFolder)> {
    let run = build(config, registry)?;
    let folder = RunFolder::create(out)?;
    write_file(&folder.config(), strict::print(&run.config)?.as_bytes())?;
    Ok((run, folder))
}

/// A run as its newest checkpoint has it, but for the keys that `sets` changes.
pub(super) fn resume(path: PathBuf, sets: &[String], registry: &Registry) -> Result<(SftRun, RunFolder)> {
    let folder = RunFolder::resume(path)?;
    let config: SftConfig = strict::load(&read_text(&folder.config())?, &folder.config().display().to_string(), sets)?;
    check_changes(&config, sets, &folder, SftConfig::may_change)?;
    let mut run = build(config, registry)?;
    let resumed = run.restore(&folder)?;
    let how = if resumed { "resumed" } else { "no checkpoint yet: started" };
    if !sets.is_empty() {
        // The checkpoint comes first: one that its config is ahead of would ask for the same keys again.
        if resumed {
            run.save(&folder)?;
        }
        write_file(&folder.config(), strict::print(&run.config)?.as_bytes())?;
    }
    note!("{how} at step {}", run.trainer.step);
    Ok((run, folder))
}

/// A run at its beginning.
fn build(config: SftConfig, registry: &Registry) -> Result<SftRun> {
    config.validate()?;
    let mut source = None;
    let policy = policies::computed(&config.compute, || {
        let folder = begun_with(&config)?;
        source = Some(SftSource::open(&config, &folder)?);
        Ok(folder)
    })?;
    let Some(source) = source else { bail!("no model was read") };
    let mut trainer = SftTrainer::new(&config, source.steps(&config)?, policy)?;
    trainer.policy.end_with(source.end_tokens())?;
    let accuracy = accuracy(&config, &mut trainer.policy, registry)?;
    trainer.rehearse()?;
    SftRun::new(config, trainer, source, accuracy)
}

/// What held-out accuracy is measured by, where the config asks for it.
fn accuracy(config: &SftConfig, policy: &mut Policy, registry: &Registry) -> Result<Option<Accuracy>> {
    let Some(asked) = &config.accuracy else { return Ok(None) };
    let rollout = &asked.rollout;
    let views = asked.data.sources(asked.prompt.as_ref().unwrap_or(&config.prompt), &asked.rubric)?;
    let rubrics = views.iter().map(|view| Ok(Rubric::from_config_with(view.rubric, registry)?));
    let judge = Judge::new(rubrics.collect::<Result<_>>()?)?;
    let max_position = policy.config.max_position_embeddings;
    let window = Window { max_position, max_new_tokens: rollout.max_new_tokens };
    let prompts = PromptSource::open(&views, policy.tokenizer.clone(), &policy.companions, config.seed, window)?;
    policy.end_with(prompts.end_tokens())?;
    let sampling = rollout.sampling(policy.config.eos_token_id.clone())?;
    let size = (asked.problems, asked.samples);
    Ok(Some(Accuracy { prompts, judge, sampling, capacity: rollout.capacity, size }))
}

/// The model that training starts from.
fn begun_with(config: &SftConfig) -> Result<ModelFolder<Parameters>> {
    let SftModel { path, shape, tokenizer } = &config.model;
    match (path, shape, tokenizer) {
        (Some(path), None, None) => {
            let path = path.to_string_lossy();
            match &config.lora {
                Some(lora) => policies::adapted(&path, lora, config.seed),
                None => Ok(load_model(&path)?.into_parameters()),
            }
        }
        (None, Some(shape), Some(tokenizer)) => {
            let shape = read_config(read_text(shape)?.as_bytes())?;
            let text = read_text(tokenizer)?;
            let tokenizer = read_tokenizer(text.as_bytes(), &shape)?;
            let weights = Weights::random(Layout::of(&shape)?, config.seed).into();
            Ok(ModelFolder { config: shape, tokenizer, companions: Companions::new(text.as_bytes()), weights })
        }
        _ => bail!("[model] needs either path, or shape and tokenizer together"),
    }
}
