//! Each trained token's entropy, gathered from the micro-batches of a step's updates: for people who look at rollouts.
//! Learning does not depend on it.

use std::sync::Mutex;

use anyhow::Result;

use crate::batch::{MicroBatch, TokenStats};
use crate::parallel::lock;
use crate::ranks::Ranks;

/// Entropies of the samples of each update in turn.
#[derive(Default)]
pub(super) struct Entropies {
    updates: Vec<Seen>,
}

/// Entropies of an update's samples, written by whichever thread computes their micro-batch.
pub(super) struct Seen(Mutex<Vec<Vec<f32>>>);

impl Entropies {
    /// A place for the entropies of the next update's `samples`.
    pub(super) fn of_update(&mut self, samples: usize) -> &Seen {
        self.updates.push(Seen(Mutex::new(vec![Vec::new(); samples])));
        &self.updates[self.updates.len() - 1]
    }

    /// Those of each sample of the step, in order; empty where the sample was masked.
    pub(super) fn into_samples(self) -> impl Iterator<Item = Vec<f32>> {
        self.updates.into_iter().flat_map(|seen| std::mem::take(&mut *lock(&seen.0)))
    }
}

impl Seen {
    /// Takes the entropies of a micro-batch's samples.
    pub(super) fn add(&self, micro: &MicroBatch, now: &TokenStats) {
        let mut all = lock(&self.0);
        for (&place, tokens) in micro.places.iter().zip(&micro.samples) {
            all[place] = now.entropies[tokens.clone()].to_vec();
        }
    }

    /// Takes those of the micro-batches that other ranks computed.
    pub(super) fn gather(&self, ranks: &Ranks) -> Result<()> {
        if ranks.size() == 1 {
            return Ok(());
        }
        let own: Vec<(usize, Vec<f32>)> = {
            let all = lock(&self.0);
            all.iter().cloned().enumerate().filter(|(_, entropies)| !entropies.is_empty()).collect()
        };
        let everybodys = ranks.gather(own)?;
        let mut all = lock(&self.0);
        everybodys.into_iter().flatten().for_each(|(place, entropies)| all[place] = entropies);
        Ok(())
    }
}
