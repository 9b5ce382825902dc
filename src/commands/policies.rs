//! Policies from what the command line names: to be trained, or only to be sampled from.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{builtin, compute, load_model};
use crate::config::{ComputeConfig, DeviceChoice, LoraConfig, Target, TrainConfig};
use crate::foreign::{self, ForeignModel, Place};
use crate::hub::{self, Wanted};
use crate::model::files::peft;
use crate::model::{Base, BaseType, CpuOptions, ModelFolder, Parameters};
use crate::output::note;
use crate::policy::{Model, Policy};
use crate::ranks::Ranks;
use crate::train::teacher::Teacher;

/// The policy that a config trains, as one of the ranks has it: all weights, or an adapter on a frozen base.
pub(super) fn trained(config: &TrainConfig, ranks: &Ranks) -> Result<Policy> {
    let path = config.model.name();
    match &config.lora {
        None => computed_by(ranks, &config.compute, || load_model(&path)),
        Some(lora) => computed_by(ranks, &config.compute, || adapted(&path, lora, config.seed)),
    }
}

/// A frozen model with a new adapter, or the one that `lora` begins with.
pub(super) fn adapted(path: &str, lora: &LoraConfig, seed: u64) -> Result<ModelFolder<Parameters>> {
    // An adapter is used from other folders too; a name of the hub stays as it is.
    let name = Path::new(path).canonicalize().map_or(path.to_owned(), |path| path.to_string_lossy().into_owned());
    load_base(path, lora.base)?.adapted(|base| lora.start(&base.layout, &name, seed))
}

/// A model of which nothing is to learn: a model folder or one of the hub, an adapter, whose base is read too, or the
/// model in the binary.
pub(super) fn frozen(path: &str) -> Result<ModelFolder<Parameters>> {
    let folder = Path::new(path);
    if !folder.join(peft::CONFIG).exists() {
        return Ok(load_base(path, None)?.into_parameters());
    }
    load_base(&peft::base_of(folder)?, None)?.adapted(|base| peft::read(folder, &base.layout))
}

/// The policy of a model of which nothing is to learn, of whatever family.
pub(super) fn sampled(path: &str, compute: &ComputeConfig) -> Result<Policy> {
    if let Some(folder) = foreign_folder(path)? {
        let place = match compute.device {
            DeviceChoice::Auto => Place::best(),
            DeviceChoice::Cpu => Place::Cpu,
            DeviceChoice::Cuda => Place::Card,
        };
        note!("{path} is computed by candle, one row at a time: slower than the families that are trained here");
        return Ok(Policy::foreign(ForeignModel::read(&folder, place)?));
    }
    computed(compute, || frozen(path))
}

/// The teacher that a config names, if it names one, for the policy that it trains.
pub(super) fn teacher(config: &TrainConfig, student: &Policy) -> Result<Option<Teacher>> {
    let Some(teacher) = &config.teacher else { return Ok(None) };
    let name = teacher.name();
    let policy =
        beside(student, &config.compute, || frozen(&name)).with_context(|| format!("teacher.path = \"{name}\""))?;
    Teacher::new(teacher, policy, student).map(Some)
}

/// The folder of a model that is sampled from and not trained, if `path` is one.
fn foreign_folder(path: &str) -> Result<Option<PathBuf>> {
    if path == builtin::MODEL || Path::new(path).join(peft::CONFIG).exists() {
        return Ok(None);
    }
    let folder = hub::model_path(path, Wanted::Small)?;
    Ok(if foreign::family_of(&folder).is_some() { Some(hub::model_path(path, Wanted::All)?) } else { None })
}

/// The policy of a model, computed as `compute` says. The model is loaded last: a card that is not there shows at once.
pub(super) fn computed<P: Into<Parameters>>(
    compute: &ComputeConfig,
    load: impl FnOnce() -> Result<ModelFolder<P>>,
) -> Result<Policy> {
    computed_by(&Ranks::alone(), compute, load)
}

/// The same by one of several ranks.
fn computed_by<P: Into<Parameters>>(
    ranks: &Ranks,
    compute: &ComputeConfig,
    load: impl FnOnce() -> Result<ModelFolder<P>>,
) -> Result<Policy> {
    let (recompute, threads, precision) = (compute.recompute, compute.threads(), compute.precision.into());
    match compute.target() {
        Target::Cpu => Ok(Policy::new(load()?, CpuOptions { threads, precision, recompute })),
        Target::Cuda => {
            let device = compute::open(ranks)?;
            Policy::on_device(load()?, recompute, threads, device)
        }
    }
}

/// The same in the place where `other` is computed, so that on a card the work of both stands in one line.
fn beside<P: Into<Parameters>>(
    other: &Policy,
    compute: &ComputeConfig,
    load: impl FnOnce() -> Result<ModelFolder<P>>,
) -> Result<Policy> {
    let Model::Device(model) = other.learner.model() else { return computed(compute, load) };
    Policy::on_device(load()?, compute.recompute, compute.threads(), model.device.clone())
}

fn load_base(path: &str, base: Option<BaseType>) -> Result<ModelFolder<Base>> {
    if path == builtin::MODEL {
        return builtin::base(base);
    }
    ModelFolder::read_requantized(&hub::model_path(path, Wanted::All)?, base)
}
