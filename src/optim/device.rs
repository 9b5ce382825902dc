//! AdamW on a device: moments beside the weights they move, and a bf16 copy of the weights written in the same pass.

use anyhow::Result;
use bytemuck::Pod;

use super::{AdamWConfig, MomentKind, Optimizer, Stretch, Update, stretches};
use crate::model::DeviceModel;
use crate::ops::adamw::device::{self as adamw, Moments};
use crate::ops::device::{Buffer, Class};
use crate::tensor::Tensor;

/// The optimizer of a [`DeviceModel`].
#[derive(Debug)]
pub struct DeviceAdamW {
    /// Settings.
    pub config: AdamWConfig,
    /// Updates made.
    pub count: u64,
    moments: State,
    stretches: Vec<Stretch>,
}

#[derive(Debug)]
enum State {
    Full { m: Buffer<f32>, v: Buffer<f32> },
    EightBit { m: Buffer<i8>, v: Buffer<u8>, m_largest: Buffer<f32>, v_largest: Buffer<f32> },
}

impl DeviceAdamW {
    /// An optimizer with empty moments for what is trained of `model`.
    pub fn new(config: AdamWConfig, kind: MomentKind, model: &DeviceModel) -> Result<Self> {
        let stretches = stretches(&model.trainable.entries);
        let (n, blocks) = (stretches.last().map_or(0, |s| s.range.end), stretches.last().map_or(0, |s| s.blocks.end));
        fn zeros<T: Pod>(model: &DeviceModel, n: usize) -> Result<Buffer<T>> {
            model.device.zeros(Class::Optimizer, n)
        }
        let moments = match kind {
            MomentKind::Full => State::Full { m: zeros(model, n)?, v: zeros(model, n)? },
            MomentKind::EightBit => State::EightBit {
                m: zeros(model, n)?,
                v: zeros(model, n)?,
                m_largest: zeros(model, blocks)?,
                v_largest: zeros(model, blocks)?,
            },
        };
        Ok(Self { config, count: 0, moments, stretches })
    }

    /// One update of `model` by its gradients at learning rate `lr`; the gradients stay.
    pub fn update(&mut self, model: &DeviceModel, lr: f64) -> Result<Update> {
        let trained = &model.trainable;
        let grad_norm = adamw::squared_norm(&model.device, trained.gradients.all())?.sqrt();
        if !grad_norm.is_finite() {
            return Ok(Update::Skipped);
        }
        self.count += 1;
        for stretch in &self.stretches {
            let step = self.config.step(lr, grad_norm, stretch.decays, self.count);
            let r = stretch.range.clone();
            let (w, copy) = (trained.values.part(r.clone()), trained.rounded.part(r.clone()));
            adamw::update(step, w, copy, trained.gradients.part(r), self.moments(stretch))?;
        }
        Ok(Update::Applied { grad_norm })
    }

    fn moments(&self, stretch: &Stretch) -> Moments<'_> {
        let (r, blocks) = (stretch.range.clone(), stretch.blocks.clone());
        match &self.moments {
            State::Full { m, v } => Moments::Full { m: m.part(r.clone()), v: v.part(r) },
            State::EightBit { m, v, m_largest, v_largest } => Moments::EightBit {
                m: m.part(r.clone()),
                v: v.part(r),
                m_largest: m_largest.part(blocks.clone()),
                v_largest: v_largest.part(blocks),
            },
        }
    }
}

impl Optimizer for DeviceAdamW {
    fn count(&self) -> u64 {
        self.count
    }

    fn set_count(&mut self, count: u64) {
        self.count = count;
    }

    fn tensors(&self) -> Vec<(&'static str, &dyn Tensor)> {
        match &self.moments {
            State::Full { m, v } => vec![("m", m), ("v", v)],
            State::EightBit { m, v, m_largest, v_largest } => {
                vec![("m", m), ("v", v), ("m_largest", m_largest), ("v_largest", v_largest)]
            }
        }
    }

    fn tensors_mut(&mut self) -> Vec<(&'static str, &mut dyn Tensor)> {
        match &mut self.moments {
            State::Full { m, v } => vec![("m", m), ("v", v)],
            State::EightBit { m, v, m_largest, v_largest } => {
                vec![("m", m), ("v", v), ("m_largest", m_largest), ("v_largest", v_largest)]
            }
        }
    }
}
