//! A frozen policy on a device, for the KL term.

use std::ops::Range;

use anyhow::Result;
use half::bf16;
use safetensors::tensor::Dtype;

use super::DeviceModel;
use crate::model::reference::Reference;
use crate::model::routing::choice_biases;
use crate::ops::device::{Buffer, Class};
use crate::tensor::Tensor;

/// The reference of a model on a device.
pub type DeviceReference = Reference<RoundedValues>;

/// A copy of what is trained: bf16, as it is computed with, and the biases of routers' choices, which are not rounded.
#[derive(Debug)]
pub struct RoundedValues {
    pub(super) values: Buffer<bf16>,
    /// Of all layers, one after another; empty where an adapter is trained.
    biases: Vec<f32>,
}

impl RoundedValues {
    /// Of each layer the biases of its router's choice, where it has some.
    pub(super) fn choice_biases(&self, model: &DeviceModel) -> Vec<Option<Vec<f32>>> {
        let mut rest = &self.biases[..];
        let mut next = |place: &Range<usize>| {
            let (biases, others) = rest.split_at(place.len());
            rest = others;
            biases.to_vec()
        };
        choice_biases(&model.layout).map(|place| place.map(&mut next)).collect()
    }
}

/// In a checkpoint the bytes of the biases stand behind the values, two places for each.
impl Tensor for RoundedValues {
    fn dtype(&self) -> Dtype {
        Dtype::BF16
    }

    fn count(&self) -> usize {
        self.values.count() + 2 * self.biases.len()
    }

    fn read(&self, range: Range<usize>) -> Result<Vec<u8>> {
        let values = self.values.count();
        let mut bytes = self.values.read(range.start.min(values)..range.end.min(values))?;
        let behind = |place: usize| 2 * place.saturating_sub(values);
        bytes.extend_from_slice(&bytemuck::cast_slice(&self.biases)[behind(range.start)..behind(range.end)]);
        Ok(bytes)
    }

    fn write(&mut self, first: usize, bytes: &[u8]) -> Result<()> {
        let values = self.values.count();
        let (of_values, of_biases) = bytes.split_at((2 * values.saturating_sub(first)).min(bytes.len()));
        if !of_values.is_empty() {
            self.values.write(first, of_values)?;
        }
        let start = 2 * first.saturating_sub(values);
        bytemuck::cast_slice_mut(&mut self.biases)[start..start + of_biases.len()].copy_from_slice(of_biases);
        Ok(())
    }
}

impl DeviceReference {
    /// The reference that a run begins with: the base where there is one, else a copy.
    pub fn of(model: &DeviceModel) -> Result<Self> {
        let mut reference = Self::Base;
        if model.base.is_none() {
            reference.refresh(model)?;
        }
        Ok(reference)
    }

    /// Makes it the model as it is now.
    pub fn refresh(&mut self, model: &DeviceModel) -> Result<()> {
        let rounded = model.trainable.rounded.all();
        if let Self::Base = self {
            let values = model.device.buffer(Class::Weights, rounded.len())?;
            *self = Self::Values(RoundedValues { values, biases: Vec::new() });
        }
        if let Self::Values(copy) = self {
            copy.values.all().copy(rounded)?;
            copy.biases = match &model.base {
                None => model.trained_biases()?.into_iter().flatten().flatten().collect(),
                Some(_) => Vec::new(),
            };
        }
        Ok(())
    }
}
