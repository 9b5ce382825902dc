//! What learners of models with experts share: the auxiliary loss of an update, and what routers chose in it, of all
//! ranks.

use anyhow::Result;

use crate::batch::Choices;
use crate::ops::experts::{Load, LoadBalance};
use crate::ranks::Ranks;

/// What is known of the routers of a model that is trained.
#[derive(Debug, Default)]
pub(super) struct RouterState {
    /// The weight of their auxiliary loss; 0 for none.
    pub(super) aux_loss_coef: f64,
    /// That loss in the latest gradients, which had a part of it.
    pub(super) aux_loss: Option<f64>,
    /// What they chose in the latest gradients.
    pub(super) choices: Choices,
}

impl RouterState {
    /// The slopes of the auxiliary loss by the shares of a row, where the next gradients have a part of it. `own` is
    /// what the loss is made of in this rank's micro-batches.
    pub(super) fn slopes(
        &mut self,
        ranks: &Ranks,
        own: impl FnOnce() -> Result<LoadBalance>,
    ) -> Result<Option<Vec<f32>>> {
        self.aux_loss = None;
        if self.aux_loss_coef == 0.0 {
            return Ok(None);
        }
        let LoadBalance { choices, scores, rows } = own()?;
        let mut sum = LoadBalance::default();
        for (choices, scores, rows) in ranks.gather((choices, scores, rows))? {
            sum.add(&LoadBalance { choices, scores, rows });
        }
        self.aux_loss = Some(sum.loss());
        Ok(Some(sum.slopes(self.aux_loss_coef)))
    }

    /// Takes what routers chose in the latest gradients: `own` in this rank's micro-batches.
    pub(super) fn note(&mut self, ranks: &Ranks, own: Choices) -> Result<()> {
        let Choices { layers, known, differing, replaced } = own;
        let layers: Vec<_> = layers.into_iter().map(|load| (load.rows, load.entropy)).collect();
        self.choices = Choices::default();
        for (layers, [known, differing, replaced]) in ranks.gather((layers, [known, differing, replaced]))? {
            let layers = layers.into_iter().map(|(rows, entropy)| Load { rows, entropy }).collect();
            self.choices.add(&Choices { layers, known, differing, replaced });
        }
        Ok(())
    }
}
