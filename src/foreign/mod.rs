//! Models of families that are sampled from and never trained: teachers, baselines, judges. candle-transformers computes
//! them, one row at a time, on the CPU or on a card that candle was built for; what this file adds is one trait in front
//! of all of them.

mod folders;
mod quantized;

use std::fmt;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use candle_core::utils::{cuda_is_available, metal_is_available};
use candle_core::{DType, Device, Tensor};

use crate::model::files::folder::{ModelFolder, read_beside};
use crate::model::files::gguf;
use crate::parallel::lock;

/// A decoder with a cache of keys and values.
pub(crate) trait TextModel: Send {
    /// Takes in `tokens (1, T)`, the first of which stands at `position`, and returns the logits behind the last.
    fn forward(&mut self, tokens: &Tensor, position: usize) -> candle_core::Result<Tensor>;

    /// Empties the cache.
    fn forget(&mut self);
}

/// Where a model of another family is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the processor.
    Cpu,
    /// On the card that this binary's candle was built for: CUDA's or Apple's.
    Card,
}

impl Place {
    /// A card if this binary has candle's side of one, or else the processor.
    pub fn best() -> Self {
        if cuda_is_available() || metal_is_available() { Self::Card } else { Self::Cpu }
    }

    fn device(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Card if cuda_is_available() => Device::new_cuda(0).context("candle finds no CUDA card"),
            Self::Card if metal_is_available() => Device::new_metal(0).context("candle finds no Metal device"),
            Self::Card => bail!(
                "this binary samples from other families on the CPU alone: take device cpu, or build it with --features \
                 candle-cuda or candle-metal"
            ),
        }
    }
}

/// A model that is sampled from and not trained.
pub struct ForeignModel {
    family: &'static str,
    device: Device,
    model: Mutex<Box<dyn TextModel>>,
}

impl fmt::Debug for ForeignModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignModel").field("family", &self.family).finish_non_exhaustive()
    }
}

impl ForeignModel {
    /// Reads a model folder or a GGUF file of a family that is known here.
    pub fn read(folder: &Path, place: Place) -> Result<ModelFolder<Self>> {
        let ModelFolder { config, tokenizer, companions, .. } = read_beside(folder)?;
        let Some(family) = folders::family(&config) else {
            bail!("model folder {} is of no family that can be sampled from", folder.display())
        };
        let device = place.device()?;
        let model = match gguf::is_named(folder) {
            true => quantized::read(family, folder, &device)?,
            false => folders::read(family, &config, folder, &device)?,
        };
        let weights = Self { family, device, model: Mutex::new(model) };
        Ok(ModelFolder { config, tokenizer, companions, weights })
    }

    /// What its family is called.
    pub fn family(&self) -> &'static str {
        self.family
    }

    /// Runs `work` with the model, its cache empty.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Reading) -> T) -> T {
        let mut model = lock(&self.model);
        let mut reading = Reading { model: &mut **model, device: &self.device, tokens: 0 };
        reading.forget();
        work(&mut reading)
    }
}

/// A model that reads a text.
pub(crate) struct Reading<'a> {
    model: &'a mut dyn TextModel,
    device: &'a Device,
    /// Tokens in its cache.
    tokens: usize,
}

impl Reading<'_> {
    /// Takes in more tokens, and returns the logits `(V)` behind the last.
    pub(crate) fn take_in(&mut self, tokens: &[u32]) -> candle_core::Result<Vec<f32>> {
        let row = Tensor::new(tokens, self.device)?.unsqueeze(0)?;
        let logits = self.model.forward(&row, self.tokens)?;
        self.tokens += tokens.len();
        logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1()
    }

    /// Begins another text.
    pub(crate) fn forget(&mut self) {
        self.model.forget();
        self.tokens = 0;
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
