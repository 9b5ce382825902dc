//! Models of families that are sampled from and never trained: teachers, baselines, judges. candle-transformers computes
//! them, one row at a time, on the CPU; what this file adds is one trait in front of all of them.

mod folders;
mod quantized;

use std::fmt;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Result, bail};

use crate::model::files::folder::{ModelFolder, read_beside};
use crate::model::files::gguf;
use crate::parallel::lock;

/// A decoder with a cache of keys and values.
pub(crate) trait TextModel: Send {
    /// Takes in `tokens`, the first of which stands at `position`, and returns the logits `(V)` behind the last.
    fn forward(&mut self, tokens: &[u32], position: usize) -> candle_core::Result<Vec<f32>>;

    /// Empties the cache.
    fn forget(&mut self);
}

/// A model that is sampled from and not trained.
pub struct ForeignModel {
    family: &'static str,
    model: Mutex<Box<dyn TextModel>>,
}

impl fmt::Debug for ForeignModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignModel").field("family", &self.family).finish_non_exhaustive()
    }
}

impl ForeignModel {
    /// Reads a model folder or a GGUF file of a family that is known here.
    pub fn read(folder: &Path) -> Result<ModelFolder<Self>> {
        let ModelFolder { config, tokenizer, companions, .. } = read_beside(folder)?;
        let Some(family) = folders::family(&config) else {
            bail!("model folder {} is of no family that can be sampled from", folder.display())
        };
        let model = match gguf::is_named(folder) {
            true => quantized::read(family, folder)?,
            false => folders::read(family, &config, folder)?,
        };
        let weights = Self { family, model: Mutex::new(model) };
        Ok(ModelFolder { config, tokenizer, companions, weights })
    }

    /// What its family is called.
    pub fn family(&self) -> &'static str {
        self.family
    }

    /// Runs `work` with the model, its cache empty.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut dyn TextModel) -> T) -> T {
        let mut model = lock(&self.model);
        model.forget();
        work(&mut **model)
    }
}

/// The family of the model in a folder or a GGUF file, if it is one that is sampled from and not trained.
pub fn family_of(folder: &Path) -> Option<&'static str> {
    // What cannot be read is for those to say who read it in earnest.
    if gguf::is_named(folder) {
        return gguf::sampled(folder).ok().flatten();
    }
    read_beside(folder).ok().and_then(|model| folders::family(&model.config))
}
