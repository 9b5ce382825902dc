//! What a step takes on several ranks: the seconds of one process, shared out as ranks share them, and the bytes that
//! go around. A model of time with its terms by name; how fast one process is, the caller has measured.

use super::{Job, Sizes};
use crate::config::{Target, TrainConfig};
use crate::grpo::updates;
use crate::model::Sharing;
use crate::model::cpu::SHARD_TOKENS;
use crate::ranks::BLOCK;

/// Bytes of a token that ranks tell each other of a completion: its id, and its log-probability.
const TOKEN: usize = 8;

/// Seconds of a step of one process on one rank's share of a machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alone {
    /// In sampling.
    pub sampling: f64,
    /// In waiting for verifiers after the last completion.
    pub judging: f64,
    /// In forward and backward passes, those that only score included.
    pub passes: f64,
    /// In updates, whose values and moments are shared out evenly.
    pub update: f64,
    /// In all that every rank does for itself: advantages, records.
    pub serial: f64,
}

/// What carries bytes from a rank to the next one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Bytes a second.
    pub bytes_per_s: f64,
    /// Seconds until the first byte is there.
    pub latency_s: f64,
}

/// What is shared out in a step, in pieces that no two ranks share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Prompts, each sampled by one rank where there are as many as ranks.
    pub prompts: usize,
    /// Completions of each.
    pub group: usize,
    /// Parts of an update's gradient, each computed by one rank.
    pub parts: usize,
    /// Updates of a step.
    pub updates: usize,
    /// Values of a gradient.
    pub gradient: usize,
    /// Tokens of all completions, each at its longest.
    pub tokens: usize,
}

/// Seconds of a step by what they are spent in, on the rank that has most to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepTime {
    /// In sampling and judging.
    pub sampling: f64,
    /// In forward and backward passes.
    pub passes: f64,
    /// In moving the weights.
    pub update: f64,
    /// In sending rollouts, gradients and new weights around.
    pub sending: f64,
    /// In what is not shared.
    pub serial: f64,
}

impl StepTime {
    /// The whole step.
    pub fn whole(&self) -> f64 {
        self.sampling + self.passes + self.update + self.sending + self.serial
    }
}

impl Work {
    /// That of a step of `config`, whose run is `job`.
    pub fn of(config: &TrainConfig, sizes: &Sizes, job: &Job) -> Self {
        let (prompts, group) = (config.rollout.prompts_per_step, config.rollout.group_size);
        let micros = job.update_tokens.div_ceil(job.tokens());
        let parts = match (job.device, Sharing::of(sizes.weights), config.compute.gradient_parts) {
            (Target::Cuda, ..) | (Target::Cpu, Sharing::Operations, 0) => micros,
            (Target::Cpu, Sharing::MicroBatches, _) => job.update_tokens.div_ceil(job.tokens().max(SHARD_TOKENS)),
            (Target::Cpu, Sharing::Operations, parts) => micros.min(parts),
        };
        Self {
            prompts,
            group,
            parts,
            updates: updates(prompts * group, config.grpo.completions_per_update),
            gradient: job.lora.map_or(sizes.weights, |lora| lora.values),
            tokens: prompts * group * (job.sequence - job.prompt),
        }
    }

    /// Completions of the rank that samples most.
    pub fn rows(&self, ranks: usize) -> usize {
        match self.prompts >= ranks {
            true => self.prompts.div_ceil(ranks) * self.group,
            false => (self.prompts * self.group).div_ceil(ranks),
        }
    }

    /// A step on so many ranks, each as fast as the process that was measured.
    pub fn on(&self, ranks: usize, alone: &Alone, link: &Link) -> StepTime {
        let share = |most: usize, all: usize| most as f64 / all.max(1) as f64;
        let sampled = share(self.rows(ranks), self.prompts * self.group);
        let computed = share(self.parts.div_ceil(ranks), self.parts);
        StepTime {
            sampling: sampled * (alone.sampling + alone.judging),
            passes: computed * alone.passes,
            update: alone.update / ranks as f64,
            sending: self.sending(ranks, link),
            serial: alone.serial,
        }
    }

    /// A gradient goes from rank to rank to be added, in blocks that follow each other: the last rank has its first block
    /// after all others have passed it on, and meanwhile hands out what is done. Then its norm is told, and each rank's
    /// share of the new weights goes around.
    fn sending(&self, ranks: usize, link: &Link) -> f64 {
        if ranks == 1 {
            return 0.0;
        }
        let (blocks, hops) = (self.gradient.div_ceil(BLOCK), ranks - 1);
        let passed_on = |values: usize| link.latency_s + 4.0 * values as f64 / link.bytes_per_s;
        let added = (blocks + hops) as f64 * passed_on(self.gradient.div_ceil(blocks.max(1)));
        let norm = 2.0 * hops as f64 * link.latency_s;
        let spread = hops as f64 * passed_on(self.gradient.div_ceil(ranks));
        let rollouts = hops as f64 * link.latency_s + (TOKEN * self.tokens) as f64 / link.bytes_per_s;
        self.updates as f64 * (added + norm + spread) + rollouts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: Work = Work { prompts: 8, group: 4, parts: 6, updates: 1, gradient: BLOCK, tokens: 1000 };
    const ALONE: Alone = Alone { sampling: 7.0, judging: 1.0, passes: 6.0, update: 1.2, serial: 0.5 };
    const LINK: Link = Link { bytes_per_s: 4e6, latency_s: 0.001 };

    #[test]
    fn a_step_is_as_long_as_the_share_of_the_rank_that_has_most() {
        for (ranks, rows, sampling, passes) in
            [(1, 32, 8.0, 6.0), (2, 16, 4.0, 3.0), (3, 12, 3.0, 2.0), (4, 8, 2.0, 2.0), (64, 1, 0.25, 1.0)]
        {
            let step = WORK.on(ranks, &ALONE, &LINK);
            assert_eq!(WORK.rows(ranks), rows, "{ranks} ranks");
            assert_eq!((step.sampling, step.passes, step.serial), (sampling, passes, 0.5), "{ranks} ranks");
            assert_eq!(step.update, 1.2 / ranks as f64, "{ranks} ranks");
        }
    }

    #[test]
    fn a_gradient_goes_to_the_last_rank_and_shares_of_the_weights_go_around() {
        let block = 4.0 * BLOCK as f64 / 4e6;
        assert_eq!(WORK.on(1, &ALONE, &LINK).sending, 0.0);
        for ranks in [2, 3, 8] {
            let hops = ranks as f64 - 1.0;
            let gradient = (1.0 + hops) * (0.001 + block) + 2.0 * hops * 0.001;
            let weights = hops * (0.001 + 4.0 * BLOCK.div_ceil(ranks) as f64 / 4e6);
            let rollouts = hops * 0.001 + 8000.0 / 4e6;
            let sending = WORK.on(ranks, &ALONE, &LINK).sending;
            assert!((sending - gradient - weights - rollouts).abs() < 1e-12, "{ranks} ranks: {sending}");
        }
    }
}
