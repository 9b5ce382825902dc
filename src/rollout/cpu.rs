//! Sampling by a team of a CPU's threads: tokens from the logits of its rows.

use anyhow::Result;

use crate::batch::RoutedExperts;
use crate::model::cpu::decoding::{Decoding, DecodingMemory};
use crate::model::{CpuModel, PackedWeights};
use crate::ops::team::Team;

use super::engine::{Row, Runner};
use super::sampling::Sampled;
use super::{Request, Sampling};

/// A team's rows.
pub(super) struct CpuRunner<'a> {
    team: &'a Team<'a>,
    decoding: Decoding<'a>,
    sampling: &'a Sampling,
    vocabulary: usize,
}

impl<'a> CpuRunner<'a> {
    pub(super) fn new(
        team: &'a Team,
        model: &'a CpuModel,
        weights: &'a PackedWeights<'a>,
        request: &Request<'a>,
    ) -> Self {
        let (sampling, memory) = (request.sampling, model.decoding_memory());
        let decoding = Decoding::new(team, &model.decoder, weights, memory, request.routed);
        Self { team, decoding, sampling, vocabulary: weights.lm_head.outputs() }
    }

    /// What the next call can use again, once every row has left.
    pub(super) fn into_memory(self) -> DecodingMemory {
        self.decoding.into_memory()
    }
}

impl Runner for CpuRunner<'_> {
    fn prefill(&mut self, tokens: &[u32]) -> Result<()> {
        self.decoding.prefill(tokens);
        Ok(())
    }

    fn enter(&mut self, uniform: f64) -> Result<(usize, Sampled)> {
        let slot = self.decoding.enter();
        Ok((slot, self.sampling.sample(&mut self.decoding.prompt_logits().to_vec(), uniform)))
    }

    fn next(&mut self, rows: &[Row], uniforms: &[f64]) -> Result<Vec<Sampled>> {
        let tokens: Vec<u32> = rows.iter().filter_map(|row| row.tokens.last().copied()).collect();
        let slots: Vec<usize> = rows.iter().map(|row| row.slot).collect();
        let logits = self.decoding.decode(&tokens, &slots).chunks_exact_mut(self.vocabulary);
        let (sampling, mut sampled) = (self.sampling, vec![None; rows.len()]);
        let pieces = logits.zip(uniforms).zip(&mut sampled);
        self.team.each(pieces, |((z, &uniform), sampled)| *sampled = Some(sampling.sample(z, uniform)));
        Ok(sampled.into_iter().flatten().collect())
    }

    fn take_in(&mut self, slot: usize, tokens: &[u32], uniform: f64) -> Result<Sampled> {
        let logits = self.decoding.take_in(tokens, slot);
        Ok(self.sampling.sample(logits, uniform))
    }

    fn leave(&mut self, slot: usize) -> Option<RoutedExperts> {
        self.decoding.leave(slot)
    }
}
