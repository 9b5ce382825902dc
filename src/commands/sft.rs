//! `reckon sft`: supervised training on generated traces or on completions from files, from random weights or a model folder.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Result, bail};
use reckon_datasets::{Countdown, Dataset, Example, FileRows, Lane, Order, Purpose, Split, Traces};

use super::{compute, load_model, policies, read_text, signals};
use crate::config::{DataConfig, Learn, SftConfig, SftModel};
use crate::disk::write_folder;
use crate::hub;
use crate::model::files::folder::{read_config, read_tokenizer};
use crate::model::{Companions, Layout, ModelFolder, Weights};
use crate::progress::Progress;
use crate::prompt::{Template, encode_completion};
use crate::sft::{Lesson, SftTrainer};
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
    let lessons = Lessons::open(&config)?;
    let folder = start(&config.model, config.seed)?;
    let template = Template::new(&config.prompt, &folder.companions)?;
    let eos = folder.config.eos_token_id.first().copied();
    let tokenizer = folder.tokenizer.clone();
    let mut trainer = SftTrainer::new(&config, policies::computed(&config.compute, || Ok(folder))?)?;
    trainer.rehearse()?;
    eprintln!("{}", compute::place(&config.compute));
    let stop = signals::stop_flag()?;
    let bar = Progress::steps(config.steps, "sft");
    let (mut step, mut next) = (0, 0usize);
    while step < config.steps && !stop.load(Ordering::Relaxed) {
        step += 1;
        let (mut batch, mut tokens) = (Vec::new(), 0);
        while tokens < config.tokens_per_step {
            let (example, completion) = lessons.get(next);
            next += 1;
            let mut lesson = template.encode(&tokenizer, &template.render(&example)?)?;
            let learnt_from = if config.learn == Learn::All { 1 } else { lesson.len() };
            lesson.extend(encode_completion(&tokenizer, &completion)?);
            lesson.extend(eos);
            tokens += lesson.len();
            batch.push(Lesson { tokens: lesson, learnt_from });
        }
        let report = trainer.step(&batch)?;
        bar.tick(step, &format!("loss {:.4}  grad norm {:.3}  lr {:.2e}", report.loss, report.grad_norm, report.lr));
        if step < config.steps && step.is_multiple_of(config.save_every.max(1)) {
            save(&trainer, &config, &args.out)?;
        }
    }
    save(&trainer, &config, &args.out)?;
    bar.finish(&format!("{step} steps, {next} completions seen; model in {}", args.out.display()));
    Ok(())
}

/// Writes the model as it is now, whole or not at all.
fn save(trainer: &SftTrainer, config: &SftConfig, out: &Path) -> Result<()> {
    write_folder(out, |path| trainer.policy.save(path, config.dtype))
}

/// Completions to learn from, without end.
enum Lessons {
    /// Made for generated problems.
    Traces(Traces),
    /// Read from files, in another order in each pass.
    Files { rows: FileRows, order: Order },
}

impl Lessons {
    fn open(config: &SftConfig) -> Result<Self> {
        match &config.data {
            DataConfig::Countdown { problems } => {
                let countdown = Countdown::new(problems.clone(), config.seed, Split::Train)?;
                Ok(Self::Traces(Traces::new(countdown, config.traces.clone(), config.seed)?))
            }
            DataConfig::File(file) => {
                let paths = hub::data_files(file.path.all())?;
                let rows = FileRows::open(&paths, &file.columns, Purpose::Completion)?.only(&file.only)?;
                let order = Order::new(config.seed, &[Lane { weight: 1.0, len: rows.len(), shuffled: true }])?;
                Ok(Self::Files { rows, order })
            }
            _ => bail!(
                "data.dataset: supervised training reads completions from \"file\" or makes traces of \"countdown\""
            ),
        }
    }

    /// Example and completion of turn `index`.
    fn get(&self, index: usize) -> (Example, String) {
        match self {
            Self::Traces(traces) => {
                let trace = traces.get(index);
                (trace.example, trace.completion)
            }
            Self::Files { rows, order } => {
                let row = order.turns(index as u64, 1).first().map_or(0, |&(_, row)| row);
                let example = rows.get(row);
                let completion = example.answer.clone();
                (example, completion)
            }
        }
    }
}

/// The model that training starts from.
fn start(model: &SftModel, seed: u64) -> Result<ModelFolder> {
    match (&model.path, &model.shape, &model.tokenizer) {
        (Some(path), None, None) => load_model(&path.to_string_lossy()),
        (None, Some(shape), Some(tokenizer)) => {
            let config = read_config(read_text(shape)?.as_bytes())?;
            let tokenizer = read_tokenizer(read_text(tokenizer)?.as_bytes(), &config)?;
            let weights = Weights::random(Layout::new(&config, config.family()?), seed);
            Ok(ModelFolder { config, tokenizer, companions: Companions::default(), weights })
        }
        _ => bail!("[model] needs either path, or shape and tokenizer together"),
    }
}
