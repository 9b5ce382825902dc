//! What routers chose, and even loads without a loss (Wang et al. 2024, arXiv:2408.15664): the bias of a router's
//! choice moves by a fixed step toward the experts that were chosen less than the mean. It has no gradient, and the
//! optimizer leaves it alone.

use anyhow::{Result, bail};

use super::CpuModel;
use crate::batch::Choices;
use crate::model::layout::{ExpertsMlp, Mlp};
use crate::model::parameters::Parameters;
use crate::ops::experts::Load;

impl CpuModel {
    /// What the routers of the layers chose since this was asked last, in micro-batches whose gradients were taken.
    pub fn take_choices(&self) -> Choices {
        let mut sum = Choices::default();
        self.choices.take_all().iter().for_each(|choices| sum.add(choices));
        sum
    }

    /// Moves the bias of each expert by `step`: up where it had fewer rows than the mean of its layer, down where it
    /// had more.
    pub fn balance(&mut self, loads: &[Load], step: f32) -> Result<()> {
        let Parameters::Full(weights) = self.parameters_mut() else {
            bail!("optim.balance moves the biases of routers, which an adapter leaves as they are: set it to 0")
        };
        let layers = weights.layout.layers.iter().enumerate();
        let biases = layers.filter_map(|(index, layer)| match &layer.mlp {
            Mlp::Experts(ExpertsMlp { bias: Some(place), .. }) => Some((index, place)),
            Mlp::Experts(_) | Mlp::Dense(_) => None,
        });
        let biases: Vec<_> = biases.collect();
        if biases.is_empty() {
            bail!("optim.balance is for routers whose choice has a bias, and this model has none: set it to 0")
        }
        for (index, place) in biases {
            let Some(load) = loads.get(index) else { continue };
            let (sum, count) = (load.rows.iter().sum::<u64>(), load.rows.len() as u64);
            for (bias, rows) in weights.values[place.range.clone()].iter_mut().zip(&load.rows) {
                match (rows * count).cmp(&sum) {
                    std::cmp::Ordering::Less => *bias += step,
                    std::cmp::Ordering::Equal => {}
                    std::cmp::Ordering::Greater => *bias -= step,
                }
            }
        }
        Ok(())
    }
}
