//! What a checkpoint of a run holds, and its exact resume: a model folder or an adapter, and two files more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{RunFolder, latest, prune, step_name, steps, tensors};
use crate::config::TrainConfig;
use crate::disk::write_folder;
use crate::model::SaveDtype;
use crate::model::files::safetensors::Reader;
use crate::model::files::{TensorFile, peft};
use crate::policy::REFERENCE;
use crate::strict;
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
    /// Tokens that end completions in the run, those of its templates among them.
    #[serde(default)]
    end_tokens: Vec<u32>,
    /// The values of the config by their dotted keys; none in a checkpoint that is older than this field.
    #[serde(default)]
    config: BTreeMap<String, String>,
}

impl State {
    fn of(trainer: &Trainer) -> Result<Self> {
        Ok(Self {
            progress: trainer.progress.clone(),
            updates: trainer.policy.learner.optimizer().map_or(0, |optimizer| optimizer.count()),
            data: trainer.prompts().fingerprints(),
            base: trainer.policy.learner.base_fingerprint().map(str::to_owned),
            dtype: trainer.policy.companions.dtype,
            end_tokens: trainer.policy.config.eos_token_id.clone(),
            config: strict::flat(&trainer.config)?,
        })
    }

    fn read(checkpoint: &Path) -> Result<Self> {
        let path = checkpoint.join(STATE);
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("{STATE} is damaged or cut short"))
    }
}

/// Saves everything a resumed run needs.
pub fn save(trainer: &Trainer, folder: &RunFolder) -> Result<()> {
    let root = folder.checkpoints();
    write_folder(&root.join(step_name(trainer.progress.step)), |path| {
        trainer.policy.save(path, SaveDtype::F32)?;
        let state = path.join(STATE);
        std::fs::write(&state, serde_json::to_vec_pretty(&State::of(trainer)?)?)
            .with_context(|| format!("cannot write {}", state.display()))?;
        tensors::write(&path.join(TENSORS), &trainer.policy.state())
    })?;
    let keep = trainer.config.save.keep_last;
    prune(&root, keep, trainer.progress.best.map(|(_, step)| step))
}

/// Puts the newest checkpoint of a run into `trainer`; returns false where there is none yet.
pub fn restore(trainer: &mut Trainer, folder: &RunFolder) -> Result<bool> {
    let Some((_, path)) = latest(&folder.checkpoints())? else { return Ok(false) };
    let state = State::read(&path).with_context(|| unusable(folder, &path))?;
    trainer.prompts().check_fingerprints(&state.data)?;
    check_base(trainer, &state)?;
    trainer.policy.restore(&path).with_context(|| unusable(folder, &path))?;
    trainer.policy.version = state.progress.policy_version;
    restore_tensors(trainer, &path, state.updates).with_context(|| unusable(folder, &path))?;
    trainer.progress = state.progress;
    Ok(true)
}

/// What keeps the newest checkpoint of a run from being gone on from, with the way out: the one before it that is whole.
fn unusable(folder: &RunFolder, path: &Path) -> String {
    let older = steps(&folder.checkpoints()).unwrap_or_default().into_iter().rev().map(|(_, path)| path);
    let way_out = match older.filter(|older| older != path).find(|older| is_whole(older)) {
        Some(older) => format!("move it away to go on from {}", older.display()),
        None => "put a whole copy of it there, or start a new run".to_owned(),
    };
    format!("the checkpoint {} cannot be gone on from ({way_out})", path.display())
}

/// Whether the files of a checkpoint are there and as long as they say.
fn is_whole(path: &Path) -> bool {
    let model = Reader::open(path).or_else(|_| Reader::open_file(path, peft::VALUES));
    State::read(path).is_ok() && model.is_ok() && Reader::open_file(path, TENSORS).is_ok()
}

fn restore_tensors(trainer: &mut Trainer, path: &Path, updates: u64) -> Result<()> {
    let mut file = Reader::open_file(path, TENSORS)?;
    let has_reference = file.names().contains(&REFERENCE);
    let read = |name: &str, tensor: &mut dyn Tensor| {
        tensors::read(&mut file, name, tensor).with_context(|| format!("{TENSORS} is not of this run"))
    };
    trainer.policy.restore_state(updates, read, has_reference)
}

/// A key of a config whose value is not the one that a checkpoint was made with.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// The dotted key.
    pub key: String,
    /// Its value in the checkpoint, as TOML writes it.
    pub was: Option<String>,
    /// Its value now.
    pub now: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".to_owned());
        write!(f, "{} is {} and was {}", self.key, shown(&self.now), shown(&self.was))
    }
}

/// In which keys `config` differs from the one that the newest checkpoint was made with, those apart that a run may be
/// resumed with as one likes.
pub fn differences(config: &TrainConfig, folder: &RunFolder) -> Result<Vec<Difference>> {
    let Some((_, path)) = latest(&folder.checkpoints())? else { return Ok(Vec::new()) };
    let was = State::read(&path).with_context(|| unusable(folder, &path))?.config;
    let now = strict::flat(config)?;
    let keys: BTreeSet<&String> = if was.is_empty() { BTreeSet::new() } else { was.keys().chain(now.keys()).collect() };
    let differs = |key: &&&String| was.get(**key) != now.get(**key) && !TrainConfig::may_change(key);
    let difference =
        |key: &String| Difference { key: key.clone(), was: was.get(key).cloned(), now: now.get(key).cloned() };
    Ok(keys.iter().filter(differs).map(|key| difference(key)).collect())
}

/// What a checkpoint knows of its model beside the files of either.
#[derive(Debug)]
pub struct Trained {
    /// What its weights were stored in before training.
    pub dtype: SaveDtype,
    /// Tokens that end its completions.
    pub end_tokens: Vec<u32>,
}

/// What a checkpoint knows of its model; `None` for a folder that is no checkpoint.
pub fn trained(checkpoint: &Path) -> Result<Option<Trained>> {
    let read = || State::read(checkpoint).map(|State { dtype, end_tokens, .. }| Trained { dtype, end_tokens });
    checkpoint.join(STATE).exists().then(read).transpose()
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
