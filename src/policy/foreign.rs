//! A policy that is sampled from and cannot be trained: a model that candle-transformers computes.

use std::path::Path;

use anyhow::{Result, bail, ensure};

use super::{ALONE, Largest, Learner, Model, Trained, Training, Who};
use crate::batch::{Loss, LossStats, MicroBatch, PromptLayout, Teaching, TokenStats};
use crate::foreign::ForeignModel;
use crate::model::ModelConfig;
use crate::optim::{Optimizer, Update};
use crate::ranks::Ranks;
use crate::tensor::Tensor;

/// A model of another family.
#[derive(Debug)]
pub struct ForeignLearner {
    model: ForeignModel,
}

impl ForeignLearner {
    /// The place where a model is sampled from.
    pub fn new(model: ForeignModel) -> Self {
        Self { model }
    }

    fn refuse<T>(&self) -> Result<T> {
        bail!("{} models are sampled from, not trained: llama, qwen2, qwen3 are trained", self.model.family())
    }
}

impl Learner for ForeignLearner {
    fn model(&self) -> Model<'_> {
        Model::Foreign(&self.model)
    }

    fn threads(&self) -> usize {
        1
    }

    fn prompt_layout(&self) -> PromptLayout {
        PromptLayout::Repeated
    }

    fn join(&mut self, ranks: &Ranks, _: usize) -> Result<()> {
        ensure!(ranks.size() == 1, ALONE);
        Ok(())
    }

    fn begin(&mut self, _: &Training) -> Result<()> {
        self.refuse()
    }

    fn logprobs(&self, _: Who, _: &[MicroBatch], _: f32) -> Result<Vec<TokenStats>> {
        self.refuse()
    }

    fn gradients(&mut self, _: &[MicroBatch], _: f32, _: &Loss) -> Result<Vec<LossStats>> {
        self.refuse()
    }

    fn distil(&mut self, _: &[MicroBatch], _: f32, _: &Loss, _: Teaching<'_, dyn Learner>) -> Result<Vec<LossStats>> {
        self.refuse()
    }

    fn update(&mut self, _: f64) -> Result<Update> {
        self.refuse()
    }

    fn refresh_reference(&mut self) -> Result<()> {
        self.refuse()
    }

    fn rehearse(&mut self, _: &Largest) -> Result<()> {
        self.refuse()
    }

    fn held(&self) -> usize {
        0
    }

    fn base_fingerprint(&self) -> Option<&str> {
        None
    }

    fn base_bytes(&self) -> usize {
        0
    }

    fn trained(&self) -> Result<Trained<'_>> {
        self.refuse()
    }

    fn restore(&mut self, _: &Path, _: &ModelConfig) -> Result<()> {
        self.refuse()
    }

    fn optimizer(&self) -> Option<&dyn Optimizer> {
        None
    }

    fn optimizer_mut(&mut self) -> Option<&mut dyn Optimizer> {
        None
    }

    fn reference(&self) -> Option<&dyn Tensor> {
        None
    }

    fn reference_mut(&mut self) -> Option<&mut dyn Tensor> {
        None
    }
}
