//! A frozen policy on a device, for the KL term.

use anyhow::Result;
use half::bf16;

use super::DeviceModel;
use crate::model::reference::Reference;
use crate::ops::device::{Buffer, Class};

/// The reference of a model on a device.
pub type DeviceReference = Reference<Buffer<bf16>>;

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
}
