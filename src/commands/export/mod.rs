//! `reckon export`: a trained model as a folder that other programs load: the original's names, shards, type of number,
//! tokenizer and chat template around the trained weights; or as a GGUF file. An adapter is merged into its base, or
//! written by itself.

mod gguf;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::policies;
use crate::checkpoint;
use crate::disk::{entries, write_folder};
use crate::model::files::gguf::Mix;
use crate::model::files::peft;
use crate::model::{ModelFolder, Parameters, SaveDtype};
use crate::output::say;

/// Arguments of `reckon export`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A run (its newest checkpoint is taken), a checkpoint, any model folder, GGUF file or adapter, or
    /// `builtin:countdown`.
    source: PathBuf,
    /// Folder to write, or file with --gguf; a model that is there is replaced.
    #[arg(long)]
    out: PathBuf,
    /// Type of the written weights; that of the model which training began with when not given, and f32 for an adapter.
    #[arg(long, value_enum)]
    dtype: Option<SaveDtype>,
    /// Write the adapter by itself, as PEFT's files, in place of the whole model.
    #[arg(long)]
    adapter: bool,
    /// Write the output matrix of a tied model as a tensor of its own.
    #[arg(long, conflicts_with = "adapter")]
    untied: bool,
    /// Write a GGUF file of this type, as llama.cpp reads it.
    #[arg(long, value_enum, value_name = "TYPE", conflicts_with_all = ["dtype", "adapter", "untied"])]
    gguf: Option<Mix>,
    /// Held-out text on which the GGUF file is compared with the model as it was; a text in the binary when not given.
    #[arg(long, requires = "gguf")]
    text: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> Result<()> {
    ensure!(
        args.gguf.is_some() || can_be_replaced(&args.out)?,
        "{} holds something else than a model, which would be lost: remove it, or name another folder by --out",
        args.out.display()
    );
    let source = match checkpoint::latest(&args.source.join("checkpoints"))? {
        Some((_, path)) => path,
        None => args.source.clone(),
    };
    let mut model = policies::frozen(&source.to_string_lossy())?;
    let trained = checkpoint::state::trained(&source)?;
    if let Some(trained) = &trained {
        let known = model.config.eos_token_id.clone();
        let more = trained.end_tokens.iter().copied().filter(|token| !known.contains(token));
        model.companions.end_with(&mut model.config, more)?;
    }
    if let Some(mix) = args.gguf {
        return gguf::write(model, mix, &args.source, &args.out, args.text.as_deref());
    }
    // Checkpoints are exact, in fp32; beside them stands what the model was stored in before.
    let stored = trained.map_or(model.companions.dtype, |trained| trained.dtype);
    write_files(&model, &args, stored, &source)
}

/// Writes a model folder, or the files of an adapter.
fn write_files(model: &ModelFolder<Parameters>, args: &Args, stored: SaveDtype, source: &Path) -> Result<()> {
    let adapter = model.weights.adapter().filter(|_| args.adapter);
    ensure!(adapter.is_some() || !args.adapter, "{} has no adapter: it was trained without [lora]", source.display());
    let dtype = args.dtype.unwrap_or(if args.adapter { SaveDtype::F32 } else { stored });
    write_folder(&args.out, |path| match adapter {
        Some(adapter) => peft::write(path, adapter, dtype),
        None if args.untied => model.save_untied(path, dtype),
        None => model.save_merged(path, dtype),
    })?;
    say!("{} from {}, as {}", args.out.display(), source.display(), dtype.torch_name())
}

/// Whether nothing is lost where this becomes a model: there is nothing, an empty folder, or a model or adapter.
fn can_be_replaced(path: &Path) -> Result<bool> {
    if !path.is_dir() {
        return Ok(!path.exists());
    }
    let there = entries(path)?;
    let is_model = ["config.json", peft::CONFIG].iter().any(|config| path.join(config).is_file());
    Ok(there.is_empty() || is_model && there.iter().all(|entry| entry.is_file()))
}
