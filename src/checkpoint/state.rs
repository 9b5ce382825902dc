//! What a checkpoint of a run holds, and its exact resume: a model folder or an adapter, and two files more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{RunFolder, latest, prune, step_name, steps, tensors};
use crate::disk::write_folder;
use crate::model::SaveDtype;
use crate::model::files::safetensors::Reader;
use crate::model::files::{TensorFile, peft};
use crate::policy::{Policy, REFERENCE};
use crate::strict;
use crate::tensor::Tensor;
use crate::train::{Progress, Trainer};

/// What is no tensor.
const STATE: &str = "trainer.json";
/// Moments of the optimizer, and the reference where it is a copy.
const TENSORS: &str = "trainer.safetensors";

/// The groups of the next step, where they were sampled ahead.
const NEXT: &str = "next.postcard";

/// What a checkpoint holds beside tensors; `P` is where the run stands.
#[derive(Serialize, Deserialize)]
struct State<P> {
    progress: P,
    updates: u64,
    /// Fingerprints of the data by source.
    data: Fingerprints,
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

/// What the rows of each source of a run are.
pub type Fingerprints = BTreeMap<String, String>;

/// A run of whatever kind, to be saved: policy, where it stands, its config, and its data.
pub struct Snapshot<'a, P, C> {
    /// The model being trained.
    pub policy: &'a Policy,
    /// Where the run stands.
    pub progress: &'a P,
    /// Its config.
    pub config: &'a C,
    /// Its rows.
    pub data: Fingerprints,
    /// What of the next step is sampled already, as [`Trainer::next_groups`] has it.
    pub next: Option<Vec<u8>>,
}

impl<P: Serialize, C: Serialize> Snapshot<'_, P, C> {
    /// Writes the checkpoint of `step`, whole or not at all.
    pub fn save(&self, folder: &RunFolder, step: u64) -> Result<()> {
        let policy = self.policy;
        let state = State {
            progress: self.progress,
            updates: policy.learner.optimizer().map_or(0, |optimizer| optimizer.count()),
            data: self.data.clone(),
            base: policy.learner.base_fingerprint().map(str::to_owned),
            dtype: policy.companions.dtype,
            end_tokens: policy.config.eos_token_id.clone(),
            config: strict::flat(self.config)?,
        };
        write_folder(&folder.checkpoints().join(step_name(step)), |path| {
            policy.save(path, SaveDtype::F32)?;
            let file = path.join(STATE);
            std::fs::write(&file, serde_json::to_vec_pretty(&state)?)
                .with_context(|| format!("cannot write {}", file.display()))?;
            if let Some(next) = &self.next {
                std::fs::write(path.join(NEXT), next).with_context(|| format!("cannot write {NEXT}"))?;
            }
            tensors::write(&path.join(TENSORS), &policy.state())
        })
    }
}

impl<P: DeserializeOwned> State<P> {
    fn read(checkpoint: &Path) -> Result<Self> {
        let path = checkpoint.join(STATE);
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("{STATE} is damaged or cut short"))
    }
}

/// Saves everything a resumed run needs. All ranks are to call it: the first one writes what the others hand over.
pub fn save(trainer: &Trainer, folder: Option<&RunFolder>) -> Result<()> {
    let Trainer { policy, progress, config, .. } = trainer;
    let Some(folder) = folder else { return tensors::read_all(&policy.state(), |_| Ok(())) };
    let (data, next) = (trainer.prompts().fingerprints(), trainer.next_groups()?);
    Snapshot { policy, progress, config, data, next }.save(folder, progress.step)?;
    prune(&folder.checkpoints(), config.save.keep_last, progress.best.map(|(_, step)| step))
}

/// Puts the newest checkpoint of a run into `trainer`; returns false where there is none yet.
pub fn restore(trainer: &mut Trainer, folder: &RunFolder) -> Result<bool> {
    let model = trainer.config.model.path.clone();
    let Some(saved) = Saved::<Progress>::newest(folder)? else { return Ok(false) };
    saved.check_data(trainer.prompts().fingerprints())?;
    let checkpoint = saved.path.clone();
    trainer.progress = saved.restore(&mut trainer.policy, &model)?;
    trainer.policy.version = trainer.progress.policy_version;
    let next = checkpoint.join(NEXT);
    if next.exists() {
        let read = std::fs::read(&next).map_err(Error::from).and_then(|bytes| trainer.set_next_groups(&bytes));
        let damaged = format!("{NEXT} is damaged, cut short or another version's; without it the step is sampled anew");
        read.context(damaged).with_context(|| unusable(folder, &checkpoint))?;
    }
    Ok(true)
}

/// The newest checkpoint of a run, of which `P` says where it stands.
pub struct Saved<'a, P> {
    folder: &'a RunFolder,
    path: PathBuf,
    state: State<P>,
}

impl<'a, P: DeserializeOwned> Saved<'a, P> {
    /// Reads what of it is no tensor; `None` where there is no checkpoint yet.
    pub fn newest(folder: &'a RunFolder) -> Result<Option<Self>> {
        let Some((_, path)) = latest(&folder.checkpoints())? else { return Ok(None) };
        let state = State::read(&path).with_context(|| unusable(folder, &path))?;
        Ok(Some(Self { folder, path, state }))
    }

    /// Refuses to go on with other rows than the run began with; `now` is what those of each source are.
    pub fn check_data(&self, now: Fingerprints) -> Result<()> {
        for (name, now) in now {
            let before = self.state.data.get(&name).map_or("none", String::as_str);
            ensure!(
                before == now,
                "the rows of data source \"{name}\" are not those the run began with (fingerprint {now}, was {before}): \
                 put the files back as they were, or start a new run"
            );
        }
        Ok(())
    }

    /// Puts its values into a policy, whose model is named `model`, and returns where the run stands. The version of the
    /// policy is the run's to say.
    pub fn restore(self, policy: &mut Policy, model: &str) -> Result<P> {
        let Self { folder, path, state } = self;
        check_base(policy, model, state.base.as_deref())?;
        let mut read = || {
            policy.restore(&path)?;
            restore_tensors(policy, &path, state.updates)
        };
        read().with_context(|| unusable(folder, &path))?;
        Ok(state.progress)
    }
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
    State::<Value>::read(path).is_ok() && model.is_ok() && Reader::open_file(path, TENSORS).is_ok()
}

fn restore_tensors(policy: &mut Policy, path: &Path, updates: u64) -> Result<()> {
    let mut file = Reader::open_file(path, TENSORS)?;
    let has_reference = file.names().contains(&REFERENCE);
    let read = |name: &str, tensor: &mut dyn Tensor| {
        tensors::read(&mut file, name, tensor).with_context(|| format!("{TENSORS} is not of this run"))
    };
    policy.restore_state(updates, read, has_reference)
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

/// In which keys `config` differs from the one that the newest checkpoint was made with, those apart that `may_change`
/// lets a run be resumed with as one likes.
pub fn differences(
    config: &impl Serialize,
    folder: &RunFolder,
    may_change: fn(&str) -> bool,
) -> Result<Vec<Difference>> {
    let Some(Saved { state, .. }) = Saved::<Value>::newest(folder)? else { return Ok(Vec::new()) };
    let (was, now) = (state.config, strict::flat(config)?);
    let keys: BTreeSet<&String> = if was.is_empty() { BTreeSet::new() } else { was.keys().chain(now.keys()).collect() };
    let differs = |key: &&&String| was.get(**key) != now.get(**key) && !may_change(key);
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
    let read = || State::<Value>::read(checkpoint).map(|State { dtype, end_tokens, .. }| Trained { dtype, end_tokens });
    checkpoint.join(STATE).exists().then(read).transpose()
}

/// An adapter means nothing beside another base than it was trained on.
fn check_base(policy: &Policy, model: &str, was: Option<&str>) -> Result<()> {
    let now = policy.learner.base_fingerprint();
    ensure!(
        now == was,
        "the model in {model} is not the one that the run began with (fingerprint {}, was {}): put that one back, or \
         start a new run",
        now.unwrap_or("none"),
        was.unwrap_or("none")
    );
    Ok(())
}
