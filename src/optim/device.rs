//! AdamW on a device: moments beside the weights they move, and a bf16 copy of the weights written in the same pass. Of
//! several ranks each has the moments of its share and moves that share's weights, which then go to all.

use std::ops::Range;

use anyhow::Result;

use super::sharded::{Moments, Zeros};
use super::{AdamWConfig, MomentKind, Optimizer, Stretch, Update, shares, stretches};
use crate::model::DeviceModel;
use crate::ops::adamw::device as adamw;
use crate::ops::device::{Buffer, Class};
use crate::ranks::DeviceRanks;
use crate::tensor::Tensor;

/// The optimizer of a [`DeviceModel`].
#[derive(Debug)]
pub struct DeviceAdamW {
    /// Settings.
    pub config: AdamWConfig,
    /// Updates made.
    pub count: u64,
    moments: Moments<Buffer<f32>, Buffer<i8>, Buffer<u8>>,
    stretches: Vec<Stretch>,
    ranks: DeviceRanks,
    /// Which of the trained values each rank moves.
    shares: Vec<Range<usize>>,
}

impl DeviceAdamW {
    /// An optimizer with empty moments for what is trained of `model`, of which each of the ranks moves its
    /// [share](super::shares).
    pub fn new(config: AdamWConfig, kind: MomentKind, model: &DeviceModel, ranks: DeviceRanks) -> Result<Self> {
        let entries = &model.trainable.entries;
        let (stretches, shares) = (stretches(entries), shares(entries, ranks.ranks().size()));
        let zeros = Zeros {
            floats: &|n| model.device.zeros(Class::Optimizer, n),
            signed: &|n| model.device.zeros(Class::Optimizer, n),
            unsigned: &|n| model.device.zeros(Class::Optimizer, n),
        };
        let moments = Moments::empty(kind, &stretches, &shares, ranks.ranks(), &zeros)?;
        Ok(Self { config, count: 0, moments, stretches, ranks, shares })
    }

    /// One update of `model` at learning rate `lr`, by its gradients, of which each rank has at least its share; they
    /// stay. All ranks have all weights after it.
    pub fn update(&mut self, model: &DeviceModel, lr: f64) -> Result<Update> {
        let (trained, own) = (&model.trainable, self.shares[self.ranks.ranks().rank()].clone());
        let squares = adamw::squared_norm(&model.device, trained.gradients.part(own.clone()))?;
        let grad_norm = self.ranks.ranks().gather(squares)?.iter().sum::<f64>().sqrt();
        if !grad_norm.is_finite() {
            return Ok(Update::Skipped);
        }
        self.count += 1;
        for Stretch { range, decays, blocks } in self.stretches.iter().filter_map(|stretch| stretch.within(&own)) {
            let step = self.config.step(lr, grad_norm, decays, self.count);
            let (w, copy) = (trained.values.part(range.clone()), trained.rounded.part(range.clone()));
            adamw::update(step, w, copy, trained.gradients.part(range.clone()), self.moments_at(range, blocks))?;
        }
        self.ranks.spread_shares(trained.values.all(), &self.shares)?;
        // What others have moved is rounded here.
        for others in [0..own.start, own.end..trained.values.all().len()] {
            adamw::round_weights(trained.values.part(others.clone()), trained.rounded.part(others))?;
        }
        Ok(Update::Applied { grad_norm })
    }

    fn moments_at(&self, r: Range<usize>, blocks: Range<usize>) -> adamw::Moments<'_> {
        match &self.moments {
            Moments::Full { m, v } => adamw::Moments::Full { m: m.at(r.clone()), v: v.at(r) },
            Moments::EightBit { m, v, m_largest, v_largest } => adamw::Moments::EightBit {
                m: m.at(r.clone()),
                v: v.at(r),
                m_largest: m_largest.at(blocks.clone()),
                v_largest: v_largest.at(blocks),
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
        self.moments.tensors()
    }

    fn tensors_mut(&mut self) -> Vec<(&'static str, &mut dyn Tensor)> {
        self.moments.tensors_mut()
    }
}
