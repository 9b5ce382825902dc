//! What a checkpoint of a run holds, and its exact resume: a model folder or an adapter, and two files more.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{RunFolder, latest, prune, step_name, tensors};
use crate::disk::write_folder;
use crate::model::SaveDtype;
use crate::model::files::TensorFile;
use crate::model::files::safetensors::Reader;
use crate::policy::REFERENCE;
use crate::tensor::Tensor;
use crate::train::{Progress, Trainer};

/// What is no tensor.
const STATE: &str = "trainer.json";
/// Moments of the optimizer, and the reference where it is a copy.
const TENSORS: &str = "trainer.safetensors";

/// What a checkpoint holds beside tensors.
#[derive(serde::Serialize, serde::Deserialize)]
struct State {
    progress: Progress,
    updates: u64,
    /// Fingerprints of the data by source.
    data: BTreeMap<String, String>,
    /// Fingerprint of the frozen base.
    #[serde(default)]
    base: Option<String>,
    /// What the weights were stored in before training.
    #[serde(default)]
    dtype: SaveDtype,
}

impl State {
    fn of(trainer: &Trainer) -> Self {
        Self {
            progress: trainer.progress.clone(),
            updates: trainer.policy.learner.optimizer().map_or(0, |optimizer| optimizer.count()),
            data: trainer.prompts().fingerprints(),
            base: trainer.policy.learner.base_fingerprint().map(str::to_owned),
            dtype: trainer.policy.companions.dtype,
        }
    }

    fn read(checkpoint: &Path) -> Result<Self> {
        let path = checkpoint.join(STATE);
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&bytes).context(STATE)
    }
}

/// Saves everything a resumed run needs.
pub fn save(trainer: &Trainer, folder: &RunFolder) -> Result<()> {
    let root = folder.checkpoints();
    write_folder(&root.join(step_name(trainer.progress.step)), |path| {
        trainer.policy.save(path, SaveDtype::F32)?;
        let state = path.join(STATE);
        std::fs::write(&state, serde_json::to_vec_pretty(&State::of(trainer))?)
            .with_context(|| format!("cannot write {}", state.display()))?;
        tensors::write(&path.join(TENSORS), &trainer.policy.state())
    })?;
    let keep = trainer.config.save.keep_last;
    prune(&root, keep, trainer.progress.best.map(|(_, step)| step))
}

/// Puts the newest checkpoint of a run into `trainer`; returns false where there is none yet.
pub fn restore(trainer: &mut Trainer, folder: &RunFolder) -> Result<bool> {
    let Some((_, path)) = latest(&folder.checkpoints())? else { return Ok(false) };
    let state = State::read(&path)?;
    trainer.prompts().check_fingerprints(&state.data)?;
    check_base(trainer, &state)?;
    trainer.policy.restore(&path)?;
    trainer.policy.version = state.progress.policy_version;
    trainer.progress = state.progress;
    let mut file = Reader::open_file(&path, TENSORS)?;
    let has_reference = file.names().contains(&REFERENCE);
    let read = |name: &str, tensor: &mut dyn Tensor| tensors::read(&mut file, name, tensor);
    trainer.policy.restore_state(state.updates, read, has_reference)?;
    Ok(true)
}

/// What the model of a checkpoint was stored in before training; `None` for a folder that is no checkpoint.
pub fn original_dtype(checkpoint: &Path) -> Result<Option<SaveDtype>> {
    checkpoint.join(STATE).exists().then(|| Ok(State::read(checkpoint)?.dtype)).transpose()
}

/// An adapter means nothing beside another base than it was trained on.
fn check_base(trainer: &Trainer, state: &State) -> Result<()> {
    let now = trainer.policy.learner.base_fingerprint();
    ensure!(
        now == state.base.as_deref(),
        "the model in {} is not the one that the run began with (fingerprint {}, was {}): put that one back, or start a \
         new run",
        trainer.config.model.path,
        now.unwrap_or("none"),
        state.base.as_deref().unwrap_or("none")
    );
    Ok(())
}
