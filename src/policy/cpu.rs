//! Learning on this machine's processor.

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{Largest, Learner, Model, NOT_BEGUN, Trained, Training, Who};
use crate::batch::{Loss, LossStats, MicroBatch, PromptLayout, Teaching, TokenStats};
use crate::model::files::peft;
use crate::model::{CpuModel, CpuReference, ModelConfig, ModelFolder, Parameters};
use crate::ops::team::Team;
use crate::optim::{AdamW, Optimizer, Update};
use crate::tensor::Tensor;

/// A model in this machine's memory with what training needs beside it.
#[derive(Debug)]
pub struct CpuLearner {
    /// The model.
    pub model: CpuModel,
    reference: Option<CpuReference>,
    /// None before training begins.
    optimizer: Option<AdamW>,
    /// The gradients that the next update moves by, of the layout of what is trained.
    pub gradients: Vec<f32>,
}

impl CpuLearner {
    /// A model that is not trained yet.
    pub fn new(model: CpuModel) -> Self {
        Self { model, reference: None, optimizer: None, gradients: Vec::new() }
    }

    fn sum_gradients(
        &mut self,
        micros: &[MicroBatch],
        temperature: f32,
        loss: &Loss,
        teaching: Option<Teaching<'_, CpuModel>>,
    ) -> Vec<LossStats> {
        // Given back first: the two sums need not fit side by side.
        self.model.reuse(std::mem::take(&mut self.gradients));
        let (sum, stats) = self.model.taught(micros, temperature, loss, teaching);
        self.gradients = sum;
        stats
    }
}

impl Learner for CpuLearner {
    fn model(&self) -> Model<'_> {
        Model::Cpu(&self.model)
    }

    fn threads(&self) -> usize {
        self.model.threads
    }

    fn prompt_layout(&self) -> PromptLayout {
        PromptLayout::Shared
    }

    fn begin(&mut self, training: &Training) -> Result<()> {
        self.optimizer = Some(AdamW::new(training.adamw, training.moments, self.model.parameters().trained_entries()));
        self.reference = training.reference.then(|| CpuReference::of(self.model.parameters()));
        Ok(())
    }

    fn logprobs(&self, who: Who, micros: &[MicroBatch], temperature: f32) -> Result<Vec<TokenStats>> {
        let reference = self.reference.as_ref().filter(|_| who == Who::Reference);
        Ok(self.model.logprobs(reference, micros, temperature))
    }

    fn gradients(&mut self, micros: &[MicroBatch], temperature: f32, loss: &Loss) -> Result<Vec<LossStats>> {
        Ok(self.sum_gradients(micros, temperature, loss, None))
    }

    fn distil(
        &mut self,
        micros: &[MicroBatch],
        temperature: f32,
        loss: &Loss,
        teaching: Teaching<'_, dyn Learner>,
    ) -> Result<Vec<LossStats>> {
        let Teaching { teacher, divergence, coef } = teaching;
        let Model::Cpu(teacher) = teacher.model() else { bail!("the teacher is not computed on this processor") };
        Ok(self.sum_gradients(micros, temperature, loss, Some(Teaching { teacher, divergence, coef })))
    }

    fn update(&mut self, lr: f64) -> Result<Update> {
        let optimizer = self.optimizer.as_mut().context(NOT_BEGUN)?;
        let (threads, trained) = (self.model.threads, self.model.trainable());
        Ok(Team::with(threads, |team| optimizer.update(team, trained, &self.gradients, lr)))
    }

    fn refresh_reference(&mut self) -> Result<()> {
        if let Some(reference) = &mut self.reference {
            reference.refresh(self.model.parameters());
        }
        Ok(())
    }

    fn rehearse(&mut self, _: &Largest) -> Result<()> {
        Ok(())
    }

    fn held(&self) -> usize {
        0
    }

    fn base_fingerprint(&self) -> Option<&str> {
        self.model.parameters().base().map(|base| base.fingerprint.as_str())
    }

    fn base_bytes(&self) -> usize {
        self.model.parameters().base().map_or(0, |base| base.bytes)
    }

    fn trained(&self) -> Result<Trained<'_>> {
        let parameters = self.model.parameters();
        Ok(parameters.adapter().map_or(Trained::Weights(parameters), |a| Trained::Adapter(Cow::Borrowed(a))))
    }

    fn restore(&mut self, folder: &Path, _: &ModelConfig) -> Result<()> {
        match self.model.parameters_mut() {
            Parameters::Full(weights) => {
                // Freed first: there may be no room for both.
                weights.values = Vec::new();
                *weights = ModelFolder::read(folder)?.weights;
            }
            Parameters::Frozen(base, Some(adapter)) => {
                adapter.values = peft::read_values(folder, &base.layout, &adapter.layout)?;
            }
            Parameters::Frozen(_, None) => {}
        }
        Ok(())
    }

    fn optimizer(&self) -> Option<&dyn Optimizer> {
        self.optimizer.as_ref().map(|optimizer| optimizer as &dyn Optimizer)
    }

    fn optimizer_mut(&mut self) -> Option<&mut dyn Optimizer> {
        self.optimizer.as_mut().map(|optimizer| optimizer as &mut dyn Optimizer)
    }

    fn reference(&self) -> Option<&dyn Tensor> {
        self.reference.as_ref().and_then(CpuReference::values)
    }

    fn reference_mut(&mut self) -> Option<&mut dyn Tensor> {
        self.reference.as_mut().and_then(CpuReference::values_mut)
    }
}
