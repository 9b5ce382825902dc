//! The model being trained, with its version: log-probabilities of given tokens, gradients, and updates, on a CPU or on
//! a device.
//!
//! Everything that must be in one place (model, reference, optimizer state, gradients) is one [`Learner`]; [`Policy`]
//! adds what is the same everywhere. How completions are sampled is left to `rollout/`.

mod cpu;
mod device;
mod foreign;
mod routers;

use std::any::Any;
use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use tokenizers::Tokenizer;

use crate::batch::{Choices, Loss, LossStats, MicroBatch, PromptLayout, Teaching, TokenStats};
use crate::disk::read_text;
use crate::foreign::ForeignModel;
use crate::model::files::folder::read_config;
use crate::model::files::untied::Untied;
use crate::model::files::{Source, folder, peft};
use crate::model::{
    Adapter, Companions, CpuModel, CpuOptions, Decoder, DeviceModel, Layout, ModelConfig, ModelFolder, Parameters,
    SaveDtype,
};
use crate::ops::device::Device;
use crate::ops::experts::Scores;
use crate::optim::{AdamWConfig, MomentKind, Optimizer, Update};
use crate::ranks::Ranks;
use crate::tensor::Tensor;

pub use cpu::CpuLearner;
pub use device::DeviceLearner;
pub use foreign::ForeignLearner;

/// The name of the reference's values among a learner's state.
pub const REFERENCE: &str = "reference";

/// The error of a program that updates a model which [`Learner::begin`] was not called for.
const NOT_BEGUN: &str = "no training has begun with this model";

/// Why a model is not copied.
const NO_COPY: &str = "rollout.ahead = 1: a model is sampled from while it is updated on a CPU alone; set 0";

/// Why other ranks cannot help a learner that trains nothing.
const ALONE: &str = "a model of this family is not trained, so ranks have nothing to share: start one process";

/// What an error of a step that is tried before the first one is about.
pub const REHEARSAL: &str = "the worst step of the run, tried before the first";

/// Which micro-batches are a rank's own: about as many tokens on all.
fn own_micro_batches(ranks: &Ranks, micros: &[MicroBatch]) -> Range<usize> {
    ranks.share(&micros.iter().map(|micro| micro.tokens.len()).collect::<Vec<_>>())
}

/// A model and how it is computed.
#[derive(Debug)]
pub struct Policy {
    /// `config.json`.
    pub config: ModelConfig,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// The files beside them, kept for saving.
    pub companions: Companions,
    /// The computation, its values, and what training needs beside them.
    pub learner: Box<dyn Learner>,
    /// Number of updates made.
    pub version: u64,
}

/// Whose log-probabilities are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The model being trained, as it is now.
    Policy,
    /// The frozen copy that the KL term holds it to.
    Reference,
}

/// A model to sample from, where its values are.
#[derive(Debug, Clone, Copy)]
pub enum Model<'a> {
    /// fp32, on this machine's threads.
    Cpu(&'a CpuModel),
    /// bf16 on a device.
    Device(&'a DeviceModel),
    /// A model of a family that is not trained.
    Foreign(&'a ForeignModel),
}

/// What a model has to be given before it can be trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Training {
    /// Settings of the optimizer.
    pub adamw: AdamWConfig,
    /// How its moments are kept.
    pub moments: MomentKind,
    /// Whether the objective has a KL term, so that a reference is kept.
    pub reference: bool,
    /// The weight of the auxiliary loss of routers; 0 for none.
    pub aux_loss_coef: f64,
}

/// What a policy is saved by.
pub enum Trained<'a> {
    /// All weights.
    Weights(&'a dyn Source),
    /// An adapter, without its base.
    Adapter(Cow<'a, Adapter>),
}

/// The largest that the steps of a run can be.
#[derive(Debug, Clone, Copy)]
pub struct Largest {
    /// Completions sampled at a time.
    pub rows: usize,
    /// Tokens of the longest prompt.
    pub prompt: usize,
    /// Tokens of the longest prompt and completion together.
    pub sequence: usize,
    /// Tokens of a micro-batch.
    pub micro_batch: usize,
}

/// One place where a policy is computed: model, reference, gradients and optimizer state, which cannot be apart.
pub trait Learner: Any + Debug + Send + Sync {
    /// The model to sample from: the very weights that updates move.
    fn model(&self) -> Model<'_>;

    /// Threads of this machine that work for it.
    fn threads(&self) -> usize;

    /// How its micro-batches hold the prompts of a group.
    fn prompt_layout(&self) -> PromptLayout;

    /// Shares log-probabilities and gradients with the other ranks from here on, before training begins; each of them has
    /// the same model. What is returned is the same on all, and on processors that of one process. The gradient of a large
    /// model is computed there in `gradient_parts` parts that are added in their order, or in one for each rank where that
    /// is 0; devices add one each.
    fn join(&mut self, ranks: &Ranks, gradient_parts: usize) -> Result<()>;

    /// The same model by itself, to be sampled from while updates move this one. A frozen base is held once for both.
    fn copy(&self) -> Result<Box<dyn Learner>> {
        bail!(NO_COPY)
    }

    /// Takes the values of the model that it is a copy of.
    fn follow(&mut self, _original: Model<'_>) -> Result<()> {
        bail!(NO_COPY)
    }

    /// Takes the memory of training: empty moments, and a reference where one is asked for.
    fn begin(&mut self, training: &Training) -> Result<()>;

    /// Log-probabilities of all micro-batches, without gradients. Without a reference, the policy is its own.
    fn logprobs(&self, who: Who, micros: &[MicroBatch], temperature: f32) -> Result<Vec<TokenStats>>;

    /// Sums the gradients of all micro-batches where the next update finds them, and returns what `loss` says of each,
    /// in order. Earlier gradients are gone.
    fn gradients(&mut self, micros: &[MicroBatch], temperature: f32, loss: &Loss) -> Result<Vec<LossStats>>;

    /// The same, with the gradients of the divergence from a teacher that computes in the same place.
    fn distil(
        &mut self,
        micros: &[MicroBatch],
        temperature: f32,
        loss: &Loss,
        teaching: Teaching<'_, dyn Learner>,
    ) -> Result<Vec<LossStats>>;

    /// What routers chose in the micro-batches of the latest gradients; nothing where no model with experts is computed.
    fn choices(&self) -> Option<&Choices> {
        None
    }

    /// The auxiliary loss of routers in the micro-batches of the latest gradients, which had a part of it, before its
    /// coefficient; nothing where it has none.
    fn aux_loss(&self) -> Option<f64> {
        None
    }

    /// Experts that a token goes to in each layer that has some; 0 for a dense model.
    fn active_experts(&self) -> usize {
        0
    }

    /// Moves the biases of the routers' choices by `step` toward experts that were chosen less than others in the
    /// micro-batches of the latest gradients. Refuses a model that has none, or does not train them.
    fn balance(&mut self, _step: f32) -> Result<()> {
        bail!("optim.balance is for models with experts whose choice has a bias, with all weights trained: set it to 0")
    }

    /// Clips the gradients and moves the weights by them, at learning rate `lr`.
    fn update(&mut self, lr: f64) -> Result<Update>;

    /// Makes the reference, if there is one, the policy as it is now.
    fn refresh_reference(&mut self) -> Result<()>;

    /// Does what takes most memory once, so that a lack of it shows before the run begins. Weights and moments stay. On a
    /// CPU nothing is done: its memory is the system's to give.
    fn rehearse(&mut self, largest: &Largest) -> Result<()>;

    /// Bytes that it holds on a device.
    fn held(&self) -> usize;

    /// Names the part of the model that is not trained, where there is one.
    fn base_fingerprint(&self) -> Option<&str>;

    /// Bytes of that part in this machine's memory; 0 where there is none.
    fn base_bytes(&self) -> usize;

    /// What is trained, for saving.
    fn trained(&self) -> Result<Trained<'_>>;

    /// Takes the values of what is trained from a folder that [`Policy::save`] wrote for a model of shape `config`.
    fn restore(&mut self, folder: &Path, config: &ModelConfig) -> Result<()>;

    /// The optimizer, once training has begun.
    fn optimizer(&self) -> Option<&dyn Optimizer>;

    /// The same, to take a checkpoint's moments.
    fn optimizer_mut(&mut self) -> Option<&mut dyn Optimizer>;

    /// The reference's values, where they are a copy.
    fn reference(&self) -> Option<&dyn Tensor>;

    /// The same, to be replaced by a checkpoint's.
    fn reference_mut(&mut self) -> Option<&mut dyn Tensor>;
}

impl Policy {
    /// The policy that a model folder holds, on this machine's processor.
    pub fn new(folder: ModelFolder<impl Into<Parameters>>, options: CpuOptions) -> Self {
        let decoder = Decoder::new(&folder.config, options.recompute);
        let ModelFolder { config, tokenizer, companions, weights } = folder;
        let parameters = weights.into().in_precision(options.precision);
        let CpuOptions { threads, precision, .. } = options;
        let learner = Box::new(CpuLearner::new(CpuModel::new(decoder, parameters, threads, precision)));
        Self { config, tokenizer, companions, learner, version: 0 }
    }

    /// The same on a device, with `threads` of this machine for what the host does of it.
    pub fn on_device(
        folder: ModelFolder<impl Into<Parameters>>,
        recompute: bool,
        threads: usize,
        device: Device,
    ) -> Result<Self> {
        let decoder = Decoder::new(&folder.config, recompute);
        let ModelFolder { config, tokenizer, companions, weights } = folder;
        let learner = Box::new(DeviceLearner::new(device, &decoder, weights.into(), threads)?);
        Ok(Self { config, tokenizer, companions, learner, version: 0 })
    }

    /// A model of a family that is sampled from and cannot be trained.
    pub fn foreign(folder: ModelFolder<ForeignModel>) -> Self {
        let ModelFolder { config, tokenizer, companions, weights } = folder;
        Self { config, tokenizer, companions, learner: Box::new(ForeignLearner::new(weights)), version: 0 }
    }

    /// The same model by itself, to be sampled from while updates move this one.
    pub fn copy(&self) -> Result<Self> {
        let (config, tokenizer, companions) = (self.config.clone(), self.tokenizer.clone(), self.companions.clone());
        Ok(Self { config, tokenizer, companions, learner: self.learner.copy()?, version: self.version })
    }

    /// Makes a copy what `original` is now.
    pub fn follow(&mut self, original: &Self) -> Result<()> {
        self.version = original.version;
        self.learner.follow(original.learner.model())
    }

    /// Moves the weights by the gradients that the learner holds, and raises the version.
    pub fn update(&mut self, lr: f64) -> Result<Update> {
        let update = self.learner.update(lr)?;
        self.version += u64::from(matches!(update, Update::Applied { .. }));
        Ok(update)
    }

    /// Moves the weights by the gradients that the learner holds, and the biases of routers by `balance` where that is
    /// not 0; raises the version.
    pub fn update_balanced(&mut self, lr: f64, balance: f64) -> Result<Update> {
        let update = self.update(lr)?;
        if balance > 0.0 && matches!(update, Update::Applied { .. }) {
            self.learner.balance(balance as f32)?;
        }
        Ok(update)
    }

    /// Refuses a model whose routers cannot be balanced by a step that is not 0.
    pub fn can_be_balanced(&mut self, balance: f64) -> Result<()> {
        if balance > 0.0 { self.learner.balance(0.0) } else { Ok(()) }
    }

    /// The weight of the auxiliary loss of routers: the one that is written, else that of the model's `config.json` where
    /// this asks for the loss. Refuses a model whose routers it is not for.
    pub fn aux_loss_coef(&self, written: Option<f64>) -> Result<f64> {
        let experts = self.config.experts()?;
        let Some(coef) = written else { return Ok(experts.map_or(0.0, |experts| experts.aux_loss_coef)) };
        ensure!(coef.is_finite() && coef >= 0.0, "optim.router_aux_loss_coef = {coef}: it must be at least 0");
        let shares = experts.is_some_and(|experts| experts.router.scores == Scores::Softmax);
        ensure!(
            coef == 0.0 || shares,
            "optim.router_aux_loss_coef = {coef}: the loss is for models whose routers weigh experts by their shares, \
             and this is none: set it to 0, and optim.balance where a choice has a bias"
        );
        Ok(coef)
    }

    /// Makes these tokens end completions too, here and wherever the model is saved.
    pub fn end_with(&mut self, tokens: impl IntoIterator<Item = u32>) -> Result<()> {
        self.companions.end_with(&mut self.config, tokens)
    }

    /// Writes what is trained into `folder`, which exists: a model folder, or the files of an adapter.
    pub fn save(&self, folder: &Path, dtype: SaveDtype) -> Result<()> {
        match self.learner.trained()? {
            Trained::Adapter(adapter) => peft::write(folder, &adapter, dtype),
            Trained::Weights(source) => {
                folder::write(folder, &self.config, &self.tokenizer, &self.companions, source, dtype)
            }
        }
    }

    /// The same, with the output matrix of a tied model as a tensor of its own.
    pub fn save_untied(&self, folder: &Path, dtype: SaveDtype) -> Result<()> {
        match self.learner.trained()? {
            Trained::Weights(source) if self.config.tie_word_embeddings => {
                let (config, source) = Untied::of(&self.config, source)?;
                folder::write(folder, &config, &self.tokenizer, &self.companions, &source, dtype)
            }
            _ => self.save(folder, dtype),
        }
    }

    /// Takes the values of what is trained from a folder that [`Policy::save`] wrote.
    pub fn restore(&mut self, folder: &Path) -> Result<()> {
        let config = folder.join("config.json");
        if config.exists() {
            self.check_shape(&read_config(read_text(&config)?.as_bytes())?)?;
        }
        self.learner.restore(folder, &self.config)
    }

    /// Refuses the shape of another model.
    fn check_shape(&self, saved: &ModelConfig) -> Result<()> {
        let (saved, own) = (Layout::of(saved)?.entries, Layout::of(&self.config)?.entries);
        let strange = saved.iter().zip(&own).find(|(saved, own)| saved != own);
        if let Some((saved, own)) = strange {
            bail!(
                "it is another model's: {} has shape {:?} there, and {} {:?} in the model of this run",
                saved.name,
                saved.shape,
                own.name,
                own.shape
            );
        }
        ensure!(
            saved.len() == own.len(),
            "it is another model's, of {} tensors: this run's has {}",
            saved.len(),
            own.len()
        );
        Ok(())
    }

    /// All that a checkpoint holds beside what [`Policy::save`] writes: moments, and the reference where it is a copy.
    pub fn state(&self) -> Vec<(&'static str, &dyn Tensor)> {
        let mut state = self.learner.optimizer().map_or_else(Vec::new, |optimizer| optimizer.tensors());
        state.extend(self.learner.reference().map(|values| (REFERENCE, values)));
        state
    }

    /// Takes the state of a checkpoint that was written after `updates` updates. `read` replaces the values of a tensor
    /// by the saved ones of its name; `has_reference` says whether the reference is among them.
    pub fn restore_state(
        &mut self,
        updates: u64,
        mut read: impl FnMut(&str, &mut dyn Tensor) -> Result<()>,
        has_reference: bool,
    ) -> Result<()> {
        let optimizer = self.learner.optimizer_mut().context(NOT_BEGUN)?;
        optimizer.set_count(updates);
        optimizer.tensors_mut().into_iter().try_for_each(|(name, tensor)| read(name, tensor))?;
        if !has_reference {
            return Ok(());
        }
        // A run that began with its base may have replaced it by the policy of a later step.
        self.learner.refresh_reference()?;
        self.learner.reference_mut().map_or(Ok(()), |values| read(REFERENCE, values))
    }
}
