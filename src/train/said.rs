//! What the policy says of the tokens that a step's updates learn from, gathered from their micro-batches: entropies for
//! people who look at rollouts, and log-probabilities where they are needed after the update that computed them.

use std::sync::Mutex;

use anyhow::Result;

use crate::batch::{MicroBatch, TokenStats};
use crate::parallel::lock;
use crate::ranks::Ranks;

/// What it says of the samples of each update in turn.
#[derive(Default)]
pub(super) struct Said {
    updates: Vec<OfUpdate>,
}

/// Of an update's samples, written by whichever thread computes their micro-batch.
pub(super) struct OfUpdate {
    samples: Mutex<Vec<TokenStats>>,
    with_logprobs: bool,
}

impl Said {
    /// A place for what is said of the next update's `samples`. Log-probabilities are kept where they are asked for.
    pub(super) fn of_update(&mut self, samples: usize, with_logprobs: bool) -> &OfUpdate {
        let samples = Mutex::new(vec![TokenStats::default(); samples]);
        self.updates.push(OfUpdate { samples, with_logprobs });
        &self.updates[self.updates.len() - 1]
    }

    /// Of each sample of the step, in order; empty where the sample was masked.
    pub(super) fn into_samples(self) -> Vec<TokenStats> {
        self.updates.into_iter().flat_map(|update| std::mem::take(&mut *lock(&update.samples))).collect()
    }
}

impl OfUpdate {
    /// Takes what is said of a micro-batch's samples.
    pub(super) fn add(&self, micro: &MicroBatch, now: &TokenStats) {
        let mut all = lock(&self.samples);
        for (&place, tokens) in micro.places.iter().zip(&micro.samples) {
            let logprobs = if self.with_logprobs { now.logprobs[tokens.clone()].to_vec() } else { Vec::new() };
            all[place] = TokenStats { logprobs, entropies: now.entropies[tokens.clone()].to_vec() };
        }
    }

    /// Takes that of the micro-batches that other ranks computed.
    pub(super) fn gather(&self, ranks: &Ranks) -> Result<()> {
        if ranks.size() == 1 {
            return Ok(());
        }
        let own: Vec<(usize, TokenStats)> = {
            let all = lock(&self.samples);
            all.iter().cloned().enumerate().filter(|(_, said)| !said.entropies.is_empty()).collect()
        };
        let everybodys = ranks.gather(own)?;
        let mut all = lock(&self.samples);
        everybodys.into_iter().flatten().for_each(|(place, said)| all[place] = said);
        Ok(())
    }
}
