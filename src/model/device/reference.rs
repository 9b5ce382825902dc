//! A frozen policy on a device, for the KL term.

use anyhow::Result;
use half::bf16;

use super::DeviceModel;
use crate::ops::device::{Buffer, Class};
use crate::tensor::Tensor;

/// What the KL term holds the policy to.
#[derive(Debug)]
pub enum DeviceReference {
    /// The base without the adapter: it is on the device anyway.
    Base,
    /// The model with these values in place of what is trained.
    Values(Buffer<bf16>),
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
            *self = Self::Values(model.device.buffer(Class::Weights, rounded.len())?);
        }
        if let Self::Values(values) = self {
            values.all().copy(rounded)?;
        }
        Ok(())
    }

    /// Its values, where they are a copy.
    pub fn values(&self) -> Option<&dyn Tensor> {
        match self {
            Self::Base => None,
            Self::Values(values) => Some(values),
        }
    }

    /// The same, to be replaced.
    pub fn values_mut(&mut self) -> Option<&mut dyn Tensor> {
        match self {
            Self::Base => None,
            Self::Values(values) => Some(values),
        }
    }
}
