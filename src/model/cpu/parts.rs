//! The gradient of an update in parts, whose sum in their order is the whole: what several ranks share among them.

use crate::batch::{Beside, Loss, LossStats, MicroBatch};
use crate::ops::team::Team;
use crate::parallel::map_in_order;
use crate::ranks::share;

use super::workspace::Workspace;
use super::{CpuModel, Job, Ready, Sharing, shards};

impl CpuModel {
    /// Cuts micro-batches, in order, into the parts whose gradients are added in their order. Those of a small model
    /// are the shards of [`CpuModel::gradients`], so that the sum has its bits; of a large one there are `count`, and
    /// with one it has them too.
    pub fn parts<'m>(&self, micros: &'m [MicroBatch], count: usize) -> Vec<&'m [MicroBatch]> {
        match self.sharing {
            Sharing::MicroBatches => shards(micros),
            Sharing::Operations => {
                let tokens: Vec<usize> = micros.iter().map(|micro| micro.tokens.len()).collect();
                let parts = (0..count).map(|part| &micros[share(&tokens, part, count)]);
                parts.filter(|part| !part.is_empty()).collect()
            }
        }
    }

    /// Hands the gradient of each of `parts` to `take`, in order, and returns what `loss` says of each micro-batch.
    pub fn gradients_of_parts(
        &self,
        parts: &[&[MicroBatch]],
        temperature: f32,
        loss: &Loss,
        beside: Beside<'_, CpuModel>,
        mut take: impl FnMut(Vec<f32>) + Send,
    ) -> Vec<LossStats> {
        Team::with(self.threads, |team| {
            let job = Job { weights: self.weights(team), temperature, loss, beside: Ready::new(team, beside) };
            match self.sharing {
                Sharing::MicroBatches => self.each_shard(&job, parts, take),
                Sharing::Operations => {
                    let mut all = Vec::new();
                    for part in parts {
                        let (gradient, stats) = self.gradients_together(team, &job, part);
                        take(gradient);
                        all.extend(stats);
                    }
                    all
                }
            }
        })
    }

    /// Hands the gradient of each shard to `take`, in order.
    pub(super) fn each_shard(
        &self,
        job: &Job,
        shards: &[&[MicroBatch]],
        mut take: impl FnMut(Vec<f32>) + Send,
    ) -> Vec<LossStats> {
        let n = self.parameters.trained_values().len();
        let mut all = Vec::new();
        let work = |ws: &mut Workspace, i: usize| {
            let mut gradient = self.gradients.take();
            gradient.clear();
            gradient.resize(n, 0.0);
            let add = |micro| self.add_gradient(&Team::alone(), job, micro, ws, &mut gradient);
            let stats: Vec<LossStats> = shards[i].iter().map(add).collect();
            (gradient, stats)
        };
        map_in_order(shards.len(), self.threads, &self.workspaces, work, |(gradient, stats)| {
            all.extend(stats);
            take(gradient);
        });
        all
    }
}
