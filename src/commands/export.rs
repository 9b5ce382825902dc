//! `reckon export`: a trained model as a folder that other programs load: the original's names, shards, type of number,
//! tokenizer and chat template around the trained weights.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::checkpoint;
use crate::model::{SaveDtype, folder};

/// Arguments of `reckon export`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A run (its newest checkpoint is taken), a checkpoint, any model folder, or `builtin:countdown`.
    source: PathBuf,
    /// Folder to write; it is replaced when it exists.
    #[arg(long)]
    out: PathBuf,
    /// Type of the written weights; that of the model which training began with when not given.
    #[arg(long, value_enum)]
    dtype: Option<SaveDtype>,
}

pub(super) fn run(args: Args) -> Result<()> {
    let source = match checkpoint::latest(&args.source.join("checkpoints"))? {
        Some((_, path)) => path,
        None => args.source,
    };
    let model = super::load_model(&source.to_string_lossy())?;
    let dtype = match args.dtype {
        Some(dtype) => dtype,
        None => original_dtype(&source)?.unwrap_or(model.companions.dtype),
    };
    let (root, name) = super::split_out(&args.out)?;
    checkpoint::write(root, name, |path| {
        folder::write(path, &model.config, &model.tokenizer, &model.companions, &model.weights, dtype)
    })?;
    println!("{} from {}, as {}", args.out.display(), source.display(), dtype.torch_name());
    Ok(())
}

/// Checkpoints are exact, in fp32; beside them stands what the model was stored in before.
fn original_dtype(checkpoint: &Path) -> Result<Option<SaveDtype>> {
    let path = checkpoint.join("trainer.json");
    if !path.exists() {
        return Ok(None);
    }
    let state: super::run::State = serde_json::from_slice(&std::fs::read(&path)?).context("trainer.json")?;
    Ok(Some(state.dtype))
}
