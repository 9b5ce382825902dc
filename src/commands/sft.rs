//! `reckon sft`: supervised training on generated traces, from random weights or a model folder.

use std::path::PathBuf;

use anyhow::{Result, bail};
use reckon_datasets::{Countdown, Split, Traces};

use super::{load_model, read_text};
use crate::checkpoint;
use crate::config::{DataConfig, SftConfig, SftModel};
use crate::model::folder::{read_config, read_tokenizer};
use crate::model::{Companions, Layout, ModelFolder, Weights};
use crate::policy::Policy;
use crate::progress::Progress;
use crate::prompt::encode;
use crate::sft::SftTrainer;
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
    let DataConfig::Countdown { problems, template } = &config.data else {
        bail!("data.dataset = \"jsonl\": supervised training makes its own traces, from dataset = \"countdown\"");
    };
    let folder = start(&config.model, config.seed)?;
    let eos = folder.config.eos_token_id.first().copied();
    let tokenizer = folder.tokenizer.clone();
    let mut trainer = SftTrainer::new(&config, Policy::new(folder, config.compute.recompute, config.compute.threads()));
    let countdown = Countdown::new(problems.clone(), config.seed, Split::Train)?;
    let traces = Traces::new(countdown, config.traces.clone(), config.seed)?;
    let bar = Progress::steps(config.steps, "sft");
    let mut next = 0usize;
    for step in 1..=config.steps {
        let (mut batch, mut tokens) = (Vec::new(), 0);
        while tokens < config.tokens_per_step {
            let trace = traces.get(next);
            next += 1;
            let text = template.replace("{question}", &trace.example.question) + &trace.completion;
            let mut sequence = encode(&tokenizer, &text)?;
            sequence.extend(eos);
            tokens += sequence.len();
            batch.push(sequence);
        }
        let report = trainer.step(&batch)?;
        bar.tick(step, &format!("loss {:.4}  grad norm {:.3}  lr {:.2e}", report.loss, report.grad_norm, report.lr));
    }
    let (root, name) = match (args.out.parent(), args.out.file_name()) {
        (Some(root), Some(name)) => (root, name.to_string_lossy().into_owned()),
        _ => bail!("--out {} is not a folder that can be written", args.out.display()),
    };
    let root = if root.as_os_str().is_empty() { std::path::Path::new(".") } else { root };
    checkpoint::write(root, &name, |path| trainer.policy.save(path, config.dtype))?;
    bar.finish(&format!("{} traces seen; model in {}", next, args.out.display()));
    Ok(())
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
