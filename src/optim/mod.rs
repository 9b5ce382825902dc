//! AdamW over the flat weights, clipping by global norm, and schedules of the learning rate.

mod cpu;
mod device;
mod schedule;

pub use cpu::AdamW;
pub use device::{DeviceAdamW, MomentKind};
pub use schedule::{Schedule, ScheduleKind};

use anyhow::Result;

use crate::config::OptimConfig;
use crate::config::Target;
use crate::ops::adamw::Step;
use crate::policy::{Model, Policy};
use crate::tensor::Tensor;

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

impl AdamWConfig {
    /// What update `count` does to weights that decay or do not, where the whole gradient has the norm `grad_norm`.
    fn step(&self, lr: f64, grad_norm: f64, decays: bool, count: u64) -> Step {
        let limit = f64::from(self.max_grad_norm);
        let scale = if limit > 0.0 && grad_norm > limit { limit / grad_norm } else { 1.0 };
        let weight_decay = if decays { self.weight_decay } else { 0.0 };
        let Self { beta1, beta2, eps, .. } = *self;
        Step { lr: lr as f32, beta1, beta2, eps, weight_decay, scale: scale as f32, count }
    }
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

/// The optimizer of a policy, on the side of its model.
#[derive(Debug)]
pub enum Optimizer {
    /// In this machine's memory.
    Cpu(AdamW),
    /// On the device.
    Device(DeviceAdamW),
}

impl Optimizer {
    /// An optimizer with empty moments for what learns of `policy`.
    pub fn new(config: &OptimConfig, policy: &Policy) -> Result<Self> {
        match &policy.model {
            Model::Cpu(model) => {
                config.check_moments(Target::Cpu)?;
                Ok(Self::Cpu(AdamW::new(config.adamw(), model.parameters.values().len())))
            }
            Model::Device(model, _) => Ok(Self::Device(DeviceAdamW::new(config.adamw(), config.moments, model)?)),
        }
    }

    /// Moves `policy` by the gradients it holds at learning rate `lr`, and raises its version.
    pub fn update(&mut self, policy: &mut Policy, lr: f64) -> Result<Update> {
        let update = match (self, &mut policy.model) {
            (Self::Cpu(adamw), Model::Cpu(model)) => adamw.update(model.parameters.learnt(), &model.sum, lr),
            (Self::Device(adamw), Model::Device(model, _)) => adamw.update(model, lr)?,
            _ => unreachable!("an optimizer is on the side of its policy"),
        };
        policy.version += u64::from(update != Update::Skipped);
        Ok(update)
    }

    /// Its moments by name, each kept as it is.
    pub fn tensors(&self) -> Vec<(&'static str, &dyn Tensor)> {
        match self {
            Self::Cpu(adamw) => vec![("m", &adamw.m), ("v", &adamw.v)],
            Self::Device(adamw) => adamw.tensors(),
        }
    }

    /// Its moments by name, to be replaced by a checkpoint's, which was written after `count` updates.
    pub fn tensors_mut(&mut self, count: u64) -> Vec<(&'static str, &mut dyn Tensor)> {
        match self {
            Self::Cpu(adamw) => {
                adamw.count = count;
                vec![("m", &mut adamw.m), ("v", &mut adamw.v)]
            }
            Self::Device(adamw) => {
                adamw.count = count;
                adamw.tensors_mut()
            }
        }
    }

    /// Updates made.
    pub fn count(&self) -> u64 {
        match self {
            Self::Cpu(adamw) => adamw.count,
            Self::Device(adamw) => adamw.count,
        }
    }
}
