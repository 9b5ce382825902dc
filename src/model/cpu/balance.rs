//! What routers chose, and biases of choices moved toward even loads.

use anyhow::{Result, bail};

use super::CpuModel;
use crate::batch::Choices;
use crate::model::parameters::Parameters;
use crate::model::routing::{FROZEN_BIASES, balanced_layers, even_out};
use crate::ops::experts::Load;

impl CpuModel {
    /// What the routers of the layers chose since this was asked last, in micro-batches whose gradients were taken.
    pub fn take_choices(&self) -> Choices {
        let mut sum = Choices::default();
        self.choices.take_all().iter().for_each(|choices| sum.add(choices));
        sum
    }

    /// Moves the bias of each expert by `step` toward the mean of its layer's loads.
    pub fn balance(&mut self, loads: &[Load], step: f32) -> Result<()> {
        let Parameters::Full(weights) = self.parameters_mut() else { bail!(FROZEN_BIASES) };
        for (layer, place) in balanced_layers(&weights.layout)? {
            if let Some(load) = loads.get(layer) {
                even_out(&mut weights.values[place.clone()], load, step);
            }
        }
        Ok(())
    }
}
