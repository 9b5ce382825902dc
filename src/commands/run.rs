//! A run on disk: its folder, its checkpoints, and their exact resume.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use safetensors::tensor::{Dtype, TensorView};

use crate::checkpoint::{self, RunFolder};
use crate::model::shards::Reader;
use crate::model::{Base, Reference, SaveDtype};
use crate::train::{Progress, Trainer};

/// Saves everything a resumed run needs. A checkpoint is a model folder, or an adapter, with two files more.
pub(super) fn save(trainer: &Trainer, folder: &RunFolder) -> Result<()> {
    let root = folder.checkpoints();
    checkpoint::write(&root, &checkpoint::step_name(trainer.progress.step), |path| {
        trainer.policy.save(path, SaveDtype::F32)?;
        write(&path.join("trainer.json"), &serde_json::to_vec_pretty(&State::of(trainer))?)?;
        write_buffers(trainer, &path.join("trainer.safetensors"))
    })?;
    let keep = trainer.config.save.keep_last;
    checkpoint::prune(&root, keep, trainer.progress.best.map(|(_, step)| step))
}

/// Puts the newest checkpoint of a run into `trainer`; returns false where there is none yet.
pub(super) fn restore(trainer: &mut Trainer, folder: &RunFolder) -> Result<bool> {
    let Some((_, path)) = checkpoint::latest(&folder.checkpoints())? else { return Ok(false) };
    let state = path.join("trainer.json");
    let state = std::fs::read(&state).with_context(|| format!("cannot read {}", state.display()))?;
    let state: State = serde_json::from_slice(&state).context("trainer.json")?;
    trainer.prompts().check_fingerprints(&state.data)?;
    check_base(trainer, &state)?;
    trainer.policy.parameters.restore(&path)?;
    trainer.policy.version = state.policy_version;
    trainer.progress = state.progress;
    trainer.optimizer.count = state.updates;
    let mut file = Reader::open_file(&path, "trainer.safetensors")?;
    fill(&mut file, "m", &mut trainer.optimizer.m)?;
    fill(&mut file, "v", &mut trainer.optimizer.v)?;
    match &mut trainer.reference {
        Some(Reference::Values(values)) => fill(&mut file, "reference", values)?,
        // A run that began with the base may have replaced it by the policy of a later step.
        Some(reference) if file.names().any(|name| name == "reference") => {
            let mut values = vec![0f32; trainer.policy.parameters.values().len()];
            fill(&mut file, "reference", &mut values)?;
            *reference = Reference::Values(values);
        }
        Some(Reference::Base) | None => {}
    }
    Ok(true)
}

/// An adapter means nothing beside another base than it was trained on.
fn check_base(trainer: &Trainer, state: &State) -> Result<()> {
    let now = fingerprint(trainer);
    ensure!(
        now == state.base,
        "the model in {} is not the one that the run began with (fingerprint {}, was {}): put that one back, or start a \
         new run",
        trainer.config.model.path,
        now.as_deref().unwrap_or("none"),
        state.base.as_deref().unwrap_or("none")
    );
    Ok(())
}

/// Of the frozen base, where there is one.
fn fingerprint(trainer: &Trainer) -> Option<String> {
    trainer.policy.parameters.base().map(|Base { fingerprint, .. }| fingerprint.clone())
}

/// What a checkpoint holds beside tensors.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct State {
    progress: Progress,
    policy_version: u64,
    updates: u64,
    /// Fingerprints of the data by source.
    data: BTreeMap<String, String>,
    /// Fingerprint of the frozen base.
    #[serde(default)]
    base: Option<String>,
    /// What the weights were stored in before training.
    #[serde(default)]
    pub(super) dtype: SaveDtype,
}

impl State {
    fn of(trainer: &Trainer) -> Self {
        let (policy_version, updates) = (trainer.policy.version, trainer.optimizer.count);
        let dtype = trainer.policy.companions.dtype;
        let data = trainer.prompts().fingerprints();
        let base = fingerprint(trainer);
        Self { progress: trainer.progress.clone(), policy_version, updates, data, base, dtype }
    }
}

/// Optimizer state, and the reference where it is a copy, each as one flat tensor; no further copy is made of them.
fn write_buffers(trainer: &Trainer, path: &Path) -> Result<()> {
    let mut parts = vec![("m", &trainer.optimizer.m), ("v", &trainer.optimizer.v)];
    if let Some(Reference::Values(values)) = &trainer.reference {
        parts.push(("reference", values));
    }
    let views = parts
        .into_iter()
        .map(|(name, values)| {
            Ok((name, TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values.as_slice()))?))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(safetensors::serialize_to_file(views, None, path)?)
}

/// Reads a tensor to where it belongs, a piece at a time.
fn fill(file: &mut Reader<File>, name: &str, out: &mut [f32]) -> Result<()> {
    let count: usize = file.shape(name)?.iter().product();
    ensure!(count == out.len(), "{name} has {count} values, the model {}", out.len());
    file.read_to(name, out)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
