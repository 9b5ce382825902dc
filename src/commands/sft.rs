//! `reckon sft`: supervised training on generated traces or on completions from files, from random weights or a model folder.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};

use super::{compute, load_model, policies, signals};
use crate::config::{SftConfig, SftModel};
use crate::disk::{read_text, write_folder};
use crate::model::files::folder::{read_config, read_tokenizer};
use crate::model::{Companions, Layout, ModelFolder, Weights};
use crate::progress::Bar;
use crate::sft::{SftReport, SftSource, SftTrainer};
use crate::strict;

/// Arguments of `reckon sft`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// TOML config.
    config: PathBuf,
    /// Override a key, such as `--set steps=100`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Folder of the model to write; it is replaced when it exists.
    #[arg(long)]
    out: PathBuf,
}

pub(super) fn run(args: Args) -> Result<()> {
    let config: SftConfig = strict::load(&read_text(&args.config)?, &args.config.display().to_string(), &args.sets)?;
    let bar = Bar::new(config.steps, "sft");
    let (stop, save) = (signals::stop_flag()?, |trainer: &SftTrainer| save(trainer, &config, &args.out));
    let (trainer, Done { step, used }) = train(&config, &stop, &bar, &save)?;
    save(&trainer)?;
    bar.finish(&format!("{step} steps, {used} completions seen; model in {}", args.out.display()));
    Ok(())
}

/// How far supervised training came.
pub(super) struct Done {
    /// Steps that were done: fewer than the config's where it was stopped.
    pub(super) step: u64,
    /// Completions that were seen.
    used: usize,
}

/// Trains until the last step, or until `stop` is set; `save` is called now and then, and not at the end.
pub(super) fn train(
    config: &SftConfig,
    stop: &AtomicBool,
    bar: &Bar,
    save: &dyn Fn(&SftTrainer) -> Result<()>,
) -> Result<(SftTrainer, Done)> {
    let folder = start(&config.model, config.seed)?;
    let mut samples = SftSource::open(config, &folder)?;
    if samples.dropped() > 0 {
        bar.line(&format!("{} rows are left out, which are longer than the model's context", samples.dropped()));
    }
    let mut trainer = SftTrainer::new(config, policies::computed(&config.compute, || Ok(folder))?)?;
    trainer.policy.end_with(samples.end_token())?;
    trainer.rehearse()?;
    bar.line(&compute::place(&config.compute));
    let mut step = 0;
    while step < config.steps && !stop.load(Ordering::Relaxed) {
        step += 1;
        let SftReport { loss, grad_norm, lr } = trainer.step(&samples.batch()?)?;
        bar.tick(step, &format!("loss {loss:.4}"), &format!("grad norm {grad_norm:.3}  lr {lr:.2e}"));
        if step < config.steps && step.is_multiple_of(config.save_every.max(1)) {
            save(&trainer)?;
        }
    }
    Ok((trainer, Done { step, used: samples.used }))
}

/// Writes the model as it is now, whole or not at all.
pub(super) fn save(trainer: &SftTrainer, config: &SftConfig, out: &Path) -> Result<()> {
    write_folder(out, |path| trainer.policy.save(path, config.dtype))
}

/// The model that training starts from.
fn start(model: &SftModel, seed: u64) -> Result<ModelFolder> {
    match (&model.path, &model.shape, &model.tokenizer) {
        (Some(path), None, None) => load_model(&path.to_string_lossy()),
        (None, Some(shape), Some(tokenizer)) => {
            let config = read_config(read_text(shape)?.as_bytes())?;
            let text = read_text(tokenizer)?;
            let tokenizer = read_tokenizer(text.as_bytes(), &config)?;
            let weights = Weights::random(Layout::of(&config)?, seed);
            Ok(ModelFolder { config, tokenizer, companions: Companions::new(text.as_bytes()), weights })
        }
        _ => bail!("[model] needs either path, or shape and tokenizer together"),
    }
}
