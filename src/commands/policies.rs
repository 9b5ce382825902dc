//! Policies from what the command line names: to be trained, or only to be sampled from.

use std::path::Path;

use anyhow::Result;

use super::{builtin, load_model};
use crate::config::TrainConfig;
use crate::hub::{self, Wanted};
use crate::model::{Base, ModelFolder, peft};
use crate::parallel::default_threads;
use crate::policy::Policy;

/// The policy that a config trains: all weights, or an adapter on a frozen base.
pub(super) fn trained(config: &TrainConfig) -> Result<Policy> {
    let (path, recompute, threads) = (config.model.name(), config.compute.recompute, config.compute.threads());
    let Some(lora) = &config.lora else { return Ok(Policy::new(load_model(&path)?, recompute, threads)) };
    // An adapter is used from other folders too; a name of the hub stays as it is.
    let name = Path::new(&path).canonicalize().map_or(path.clone(), |path| path.to_string_lossy().into_owned());
    let model = load_base(&path)?.adapted(|base| lora.start(&base.layout, &name, config.seed))?;
    Ok(Policy::new(model, recompute, threads))
}

/// A policy of which nothing is to learn: a model folder or one of the hub, an adapter, whose base is read too, or the
/// model in the binary.
pub(super) fn frozen(path: &str) -> Result<Policy> {
    let folder = Path::new(path);
    if !folder.join(peft::CONFIG).exists() {
        return Ok(Policy::new(load_base(path)?, false, default_threads()));
    }
    let model = load_base(&peft::base_of(folder)?)?.adapted(|base| peft::read(folder, &base.layout))?;
    Ok(Policy::new(model, false, default_threads()))
}

fn load_base(path: &str) -> Result<ModelFolder<Base>> {
    if path == builtin::MODEL {
        return builtin::base();
    }
    ModelFolder::read_frozen(&hub::model_folder(path, Wanted::All)?)
}
