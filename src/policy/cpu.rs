//! Learning on this machine's processor.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::routers::RouterState;
use super::{Largest, Learner, Model, NO_COPY, NOT_BEGUN, Trained, Training, Who, own_micro_batches};
use crate::batch::{Beside, Choices, Loss, LossStats, MicroBatch, PromptLayout, Teaching, TokenStats};
use crate::model::files::peft;
use crate::model::{CpuModel, CpuReference, ModelConfig, ModelFolder, Parameters};
use crate::ops::team::Team;
use crate::optim::{AdamW, Optimizer, Update, shares};
use crate::ranks::Ranks;
use crate::tensor::Tensor;

/// A model in this machine's memory with what training needs beside it.
#[derive(Debug)]
pub struct CpuLearner {
    /// The model.
    pub model: CpuModel,
    reference: Option<CpuReference>,
    /// None before training begins.
    optimizer: Option<AdamW>,
    /// The gradients that the next update moves by, of the layout of what is trained. Of several ranks the last one has
    /// all of them, and each those of its share, beside what it has added up of others.
    pub gradients: Vec<f32>,
    /// Who shares its work.
    ranks: Ranks,
    /// Which of the trained values each rank has moments of, and moves.
    pub shares: Vec<Range<usize>>,
    /// Parts in which the gradient of a large model is computed.
    gradient_parts: usize,
    routers: RouterState,
}

impl CpuLearner {
    /// A model that is not trained yet.
    pub fn new(model: CpuModel) -> Self {
        let (reference, optimizer, gradients, routers) = Default::default();
        let (ranks, gradient_parts) = (Ranks::alone(), 1);
        let shares = shares(model.parameters().trained_entries(), 1);
        Self { model, reference, optimizer, gradients, ranks, shares, gradient_parts, routers }
    }

    fn sum_gradients(
        &mut self,
        micros: &[MicroBatch],
        temperature: f32,
        loss: &Loss,
        teaching: Option<Teaching<'_, CpuModel>>,
    ) -> Result<Vec<LossStats>> {
        // Given back first: the two sums need not fit side by side.
        self.model.reuse(std::mem::take(&mut self.gradients));
        let own = own_micro_batches(&self.ranks, micros);
        let slopes = self.routers.slopes(&self.ranks, || Ok(self.model.load_balance(&micros[own])))?;
        let beside = Beside { teaching, balance_slopes: slopes.as_deref() };
        let (sum, stats) = match self.ranks.size() == 1 && self.gradient_parts == 1 {
            true => self.model.taught(micros, temperature, loss, beside),
            false => self.taught_in_parts(micros, temperature, loss, beside)?,
        };
        self.gradients = sum;
        if self.model.decoder.router.is_some() {
            self.routers.note(&self.ranks, self.model.take_choices())?;
        }
        Ok(stats)
    }

    /// The gradients in parts, of which each rank computes some that follow each other.
    fn taught_in_parts(
        &self,
        micros: &[MicroBatch],
        temperature: f32,
        loss: &Loss,
        beside: Beside<'_, CpuModel>,
    ) -> Result<(Vec<f32>, Vec<LossStats>)> {
        let parts = self.model.parts(micros, self.gradient_parts);
        let own = self.ranks.share(&parts.iter().map(|part| tokens(part)).collect::<Vec<_>>());
        let (mut gradients, begins): (Vec<Vec<f32>>, bool) = (Vec::new(), self.ranks.is_first());
        let stats = self.model.gradients_of_parts(&parts[own], temperature, loss, beside, |gradient| {
            // The sum begins on the first rank, which need not keep its parts apart.
            let Some(sum) = gradients.first_mut().filter(|_| begins) else { return gradients.push(gradient) };
            sum.iter_mut().zip(&gradient).for_each(|(sum, g)| *sum += g);
            self.model.reuse(gradient);
        });
        let sum = self.ranks.sum_shares(gradients, &self.shares)?;
        Ok((sum, self.ranks.gather(stats)?.concat()))
    }
}

/// Tokens of some micro-batches.
fn tokens(micros: &[MicroBatch]) -> usize {
    micros.iter().map(|micro| micro.tokens.len()).sum()
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

    fn join(&mut self, ranks: &Ranks, gradient_parts: usize) -> Result<()> {
        self.ranks = ranks.clone();
        self.gradient_parts = if gradient_parts == 0 { ranks.size() } else { gradient_parts };
        self.shares = shares(self.model.parameters().trained_entries(), ranks.size());
        Ok(())
    }

    fn copy(&self) -> Result<Box<dyn Learner>> {
        Ok(Box::new(Self::new(self.model.clone())))
    }

    fn follow(&mut self, original: Model<'_>) -> Result<()> {
        let Model::Cpu(original) = original else { bail!(NO_COPY) };
        self.model.trainable().values.copy_from_slice(original.parameters().trained_values());
        Ok(())
    }

    fn begin(&mut self, training: &Training) -> Result<()> {
        let entries = self.model.parameters().trained_entries();
        self.optimizer = Some(AdamW::new(training.adamw, training.moments, entries, &self.ranks)?);
        self.routers.aux_loss_coef = training.aux_loss_coef;
        self.reference = training.reference.then(|| CpuReference::of(self.model.parameters()));
        Ok(())
    }

    fn logprobs(&self, who: Who, micros: &[MicroBatch], temperature: f32) -> Result<Vec<TokenStats>> {
        let reference = self.reference.as_ref().filter(|_| who == Who::Reference);
        let own = own_micro_batches(&self.ranks, micros);
        let all = self.ranks.gather(self.model.logprobs(reference, &micros[own], temperature))?;
        Ok(all.into_iter().flatten().collect())
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
        let Model::Cpu(teacher) = teaching.teacher.model() else {
            bail!("the teacher is not computed on this processor")
        };
        self.sum_gradients(micros, temperature, loss, Some(teaching.by(teacher)))
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
        self.model.decoder.router.map_or(0, |router| router.active)
    }

    fn update(&mut self, lr: f64) -> Result<Update> {
        let optimizer = self.optimizer.as_mut().context(NOT_BEGUN)?;
        let (threads, trained) = (self.model.threads, self.model.trainable());
        Team::with(threads, |team| optimizer.update(team, trained, &self.gradients, lr))
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
