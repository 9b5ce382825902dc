//! Learning on a device, in bf16 with fp32 master values of what is trained.

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::routers::RouterState;
use super::{Largest, Learner, Model, NOT_BEGUN, Trained, Training, Who, own_micro_batches};
use crate::batch::{Beside, Choices, Loss, LossStats, MicroBatch, PromptLayout, Teaching, TokenLosses, TokenStats};
use crate::model::files::peft;
use crate::model::files::safetensors::Reader;
use crate::model::{Adapter, Decoder, DeviceModel, DeviceReference, Layout, ModelConfig, Parameters};
use crate::ops::device::Device;
use crate::ops::experts::LoadBalance;
use crate::optim::{DeviceAdamW, Optimizer, Update, shares};
use crate::ranks::{DeviceRanks, Ranks};
use crate::tensor::Tensor;

/// A model on a device with what training needs beside it.
#[derive(Debug)]
pub struct DeviceLearner {
    /// The model.
    pub model: DeviceModel,
    reference: Option<DeviceReference>,
    /// None before training begins.
    optimizer: Option<DeviceAdamW>,
    /// Who shares its work.
    ranks: DeviceRanks,
    routers: RouterState,
    /// Names the frozen base, where there is one.
    fingerprint: Option<String>,
    /// The adapter as it was brought to the device.
    adapter: Option<Adapter>,
}

impl DeviceLearner {
    /// Brings a model to a device.
    pub fn new(device: Device, decoder: &Decoder, parameters: Parameters, threads: usize) -> Result<Self> {
        let mut model = DeviceModel::new(device, decoder, &parameters)?;
        model.threads = threads;
        let (fingerprint, adapter) = match parameters {
            Parameters::Full(_) => (None, None),
            Parameters::Frozen(base, adapter) => (Some(base.fingerprint), adapter),
        };
        let (ranks, routers) = Default::default();
        Ok(Self { model, reference: None, optimizer: None, ranks, routers, fingerprint, adapter })
    }

    fn sum_gradients(
        &mut self,
        micros: &[MicroBatch],
        temperature: f32,
        loss: &Loss,
        teaching: Option<Teaching<'_, DeviceModel>>,
    ) -> Result<Vec<LossStats>> {
        let (ranks, trained) = (self.ranks.ranks(), &self.model.trainable);
        let own = &micros[own_micro_batches(ranks, micros)];
        let slopes = self.routers.slopes(ranks, || load_balance(&self.model, own))?;
        let own = self.own_gradients(own, temperature, loss, Beside { teaching, balance_slopes: slopes.as_deref() })?;
        if self.model.active_experts() > 0 {
            self.routers.note(ranks, self.model.take_choices())?;
        }
        self.ranks.sum_shares(trained.gradients.all(), &shares(&trained.entries, ranks.size()))?;
        Ok(ranks.gather(own)?.concat())
    }

    /// The gradients of micro-batches that are this rank's alone.
    fn own_gradients(
        &self,
        micros: &[MicroBatch],
        temperature: f32,
        loss: &Loss,
        beside: Beside<'_, DeviceModel>,
    ) -> Result<Vec<LossStats>> {
        self.model.trainable.gradients.all().zero()?;
        micros.iter().map(|micro| self.model.taught(micro, temperature, loss, beside)).collect()
    }
}

/// What the auxiliary loss of routers is made of in some micro-batches.
fn load_balance(model: &DeviceModel, micros: &[MicroBatch]) -> Result<LoadBalance> {
    let mut sum = LoadBalance::default();
    for micro in micros {
        sum.add(&model.load_balance(micro)?);
    }
    Ok(sum)
}

impl Learner for DeviceLearner {
    fn model(&self) -> Model<'_> {
        Model::Device(&self.model)
    }

    fn threads(&self) -> usize {
        self.model.threads
    }

    fn prompt_layout(&self) -> PromptLayout {
        PromptLayout::Repeated
    }

    fn join(&mut self, ranks: &Ranks, _: usize) -> Result<()> {
        self.ranks = DeviceRanks::join(ranks, &self.model.device)?;
        Ok(())
    }

    fn begin(&mut self, training: &Training) -> Result<()> {
        let Training { adamw, moments, aux_loss_coef, .. } = *training;
        self.routers.aux_loss_coef = aux_loss_coef;
        self.optimizer = Some(DeviceAdamW::new(adamw, moments, &self.model, self.ranks.clone())?);
        self.reference = training.reference.then(|| DeviceReference::of(&self.model)).transpose()?;
        Ok(())
    }

    fn logprobs(&self, who: Who, micros: &[MicroBatch], temperature: f32) -> Result<Vec<TokenStats>> {
        let reference = self.reference.as_ref().filter(|_| who == Who::Reference);
        let (ranks, model) = (self.ranks.ranks(), &self.model);
        let own = &micros[own_micro_batches(ranks, micros)];
        let own = own.iter().map(|micro| model.logprobs(reference, micro, temperature)).collect::<Result<Vec<_>>>()?;
        Ok(ranks.gather(own)?.concat())
    }

    fn gradients(&mut self, micros: &[MicroBatch], temperature: f32, loss: &Loss) -> Result<Vec<LossStats>> {
        self.sum_gradients(micros, temperature, loss, None)
    }

    fn distil(
        &mut self,
        micros: &[MicroBatch],
        temperature: f32,
        loss: &Loss,
        teaching: Teaching<'_, dyn Learner>,
    ) -> Result<Vec<LossStats>> {
        match teaching.teacher.model() {
            Model::Device(teacher) if teacher.device.is(&self.model.device) => {
                self.sum_gradients(micros, temperature, loss, Some(teaching.by(teacher)))
            }
            _ => bail!("the teacher is not on the policy's device"),
        }
    }

    fn choices(&self) -> Option<&Choices> {
        Some(&self.routers.choices)
    }

    fn aux_loss(&self) -> Option<f64> {
        self.routers.aux_loss
    }

    fn balance(&mut self, step: f32) -> Result<()> {
        self.model.balance(&self.routers.choices.layers, step)
    }

    fn active_experts(&self) -> usize {
        self.model.active_experts()
    }

    fn update(&mut self, lr: f64) -> Result<Update> {
        let optimizer = self.optimizer.as_mut().context(NOT_BEGUN)?;
        optimizer.update(&self.model, lr)
    }

    fn refresh_reference(&mut self) -> Result<()> {
        self.reference.as_mut().map_or(Ok(()), |reference| reference.refresh(&self.model))
    }

    fn rehearse(&mut self, largest: &Largest) -> Result<()> {
        let Largest { rows, prompt, sequence, micro_batch } = *largest;
        if rows > 0 {
            self.model.rehearse_sampling(rows, prompt, sequence)?;
        }
        let nothing = |micro: &MicroBatch, _: &TokenStats| TokenLosses {
            gradient: vec![0.0; micro.rows.len()],
            ..TokenLosses::default()
        };
        let micros = [MicroBatch::largest(micro_batch, sequence)];
        self.own_gradients(&micros, 1.0, &nothing, Beside::default())?;
        // No run's tokens were routed.
        self.model.take_choices();
        Ok(())
    }

    fn held(&self) -> usize {
        self.model.device.held_in_all()
    }

    fn base_fingerprint(&self) -> Option<&str> {
        self.fingerprint.as_deref()
    }

    fn base_bytes(&self) -> usize {
        0
    }

    fn trained(&self) -> Result<Trained<'_>> {
        let Some(adapter) = &self.adapter else { return Ok(Trained::Weights(&self.model.trainable)) };
        let values = self.model.trainable.download()?;
        Ok(Trained::Adapter(Cow::Owned(Adapter { values, ..adapter.clone() })))
    }

    fn restore(&mut self, folder: &Path, config: &ModelConfig) -> Result<()> {
        match &self.adapter {
            Some(adapter) => {
                let layout = Layout::of(config)?;
                self.model.trainable.upload(&peft::read_values(folder, &layout, &adapter.layout)?)
            }
            None => self.model.trainable.read_from(&mut Reader::open(folder)?),
        }
    }

    fn optimizer(&self) -> Option<&dyn Optimizer> {
        self.optimizer.as_ref().map(|optimizer| optimizer as &dyn Optimizer)
    }

    fn optimizer_mut(&mut self) -> Option<&mut dyn Optimizer> {
        self.optimizer.as_mut().map(|optimizer| optimizer as &mut dyn Optimizer)
    }

    fn reference(&self) -> Option<&dyn Tensor> {
        self.reference.as_ref().and_then(DeviceReference::values)
    }

    fn reference_mut(&mut self) -> Option<&mut dyn Tensor> {
        self.reference.as_mut().and_then(DeviceReference::values_mut)
    }
}
