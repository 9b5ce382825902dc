//! AdamW on this machine, over the flat values of what is trained.

use super::{AdamWConfig, Optimizer, Update};
use crate::model::Trainable;
use crate::ops::adamw;
use crate::ops::team::Team;
use crate::tensor::Tensor;

/// The optimizer with its state, of the layout of what is trained.
#[derive(Debug, Clone)]
pub struct AdamW {
    /// Settings.
    pub config: AdamWConfig,
    /// First moments.
    pub m: Vec<f32>,
    /// Second moments.
    pub v: Vec<f32>,
    /// Updates made.
    pub count: u64,
}

impl AdamW {
    /// An optimizer with empty moments for `n` weights.
    pub fn new(config: AdamWConfig, n: usize) -> Self {
        Self { config, m: vec![0f32; n], v: vec![0f32; n], count: 0 }
    }

    /// One update with the gradient `g`, of the layout of what is trained, at learning rate `lr`.
    pub fn update(&mut self, team: &Team, trained: Trainable, g: &[f32], lr: f64) -> Update {
        let grad_norm = adamw::squared_norm(team, g).sqrt();
        if !grad_norm.is_finite() {
            return Update::Skipped;
        }
        self.count += 1;
        for entry in trained.entries {
            let step = self.config.step(lr, grad_norm, entry.is_matrix(), self.count);
            let r = entry.range.clone();
            let (m, v) = (&mut self.m[r.clone()], &mut self.v[r.clone()]);
            adamw::update(team, step, &mut trained.values[r.clone()], &g[r], m, v);
        }
        Update::Applied { grad_norm }
    }
}

impl Optimizer for AdamW {
    fn count(&self) -> u64 {
        self.count
    }

    fn set_count(&mut self, count: u64) {
        self.count = count;
    }

    fn tensors(&self) -> Vec<(&'static str, &dyn Tensor)> {
        vec![("m", &self.m), ("v", &self.v)]
    }

    fn tensors_mut(&mut self) -> Vec<(&'static str, &mut dyn Tensor)> {
        vec![("m", &mut self.m), ("v", &mut self.v)]
    }
}
