//! AdamW over the flat weights, clipping by global norm, and schedules of the learning rate.

mod device;
mod schedule;

pub use device::{DeviceAdamW, MomentKind};
pub use schedule::{Schedule, ScheduleKind};

use crate::model::Learnt;
use crate::ops::adamw;

/// Settings of AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the square root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay, on matrices only.
    pub weight_decay: f32,
    /// Gradients are scaled down to this global norm; 0 leaves them.
    pub max_grad_norm: f32,
}

/// The optimizer with its state, of the layout of what learns.
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

/// What became of an update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Update {
    /// The weights moved; the global norm of the gradient before clipping.
    Applied {
        /// Norm before clipping.
        grad_norm: f64,
    },
    /// The gradient was not finite; the weights stayed.
    Skipped,
}

impl AdamW {
    /// An optimizer with empty moments for `n` weights.
    pub fn new(config: AdamWConfig, n: usize) -> Self {
        Self { config, m: vec![0f32; n], v: vec![0f32; n], count: 0 }
    }

    /// One update with the gradient `g`, of the layout of what learns, at learning rate `lr`.
    pub fn update(&mut self, learnt: Learnt, g: &[f32], lr: f64) -> Update {
        let grad_norm = adamw::squared_norm(g).sqrt();
        if !grad_norm.is_finite() {
            return Update::Skipped;
        }
        self.count += 1;
        let limit = f64::from(self.config.max_grad_norm);
        let scale = if limit > 0.0 && grad_norm > limit { limit / grad_norm } else { 1.0 };
        let AdamWConfig { beta1, beta2, eps, .. } = self.config;
        for entry in learnt.entries {
            let weight_decay = if entry.is_matrix() { self.config.weight_decay } else { 0.0 };
            let step =
                adamw::Step { lr: lr as f32, beta1, beta2, eps, weight_decay, scale: scale as f32, count: self.count };
            let r = entry.range.clone();
            let (m, v) = (&mut self.m[r.clone()], &mut self.v[r.clone()]);
            adamw::update(step, &mut learnt.values[r.clone()], &g[r], m, v);
        }
        Update::Applied { grad_norm }
    }
}
