//! Sampling from a model of another family: one row at a time, its prompt computed for each.

use anyhow::Result;

use super::Sampling;
use super::engine::{Row, Runner};
use super::sampling::Sampled;
use crate::batch::RoutedExperts;
use crate::foreign::Reading;

/// The row.
pub(super) struct ForeignRunner<'a, 'm> {
    model: &'a mut Reading<'m>,
    sampling: &'a Sampling,
    /// The prompt at hand.
    prompt: Vec<u32>,
}

impl<'a, 'm> ForeignRunner<'a, 'm> {
    pub(super) fn new(model: &'a mut Reading<'m>, sampling: &'a Sampling) -> Self {
        Self { model, sampling, prompt: Vec::new() }
    }

    /// Takes in tokens and chooses what comes behind them.
    fn go_on(&mut self, tokens: &[u32], uniform: f64) -> Result<Sampled> {
        let mut logits = self.model.take_in(tokens)?;
        Ok(self.sampling.sample(&mut logits, uniform))
    }
}

impl Runner for ForeignRunner<'_, '_> {
    fn prefill(&mut self, tokens: &[u32]) -> Result<()> {
        self.prompt = tokens.to_vec();
        Ok(())
    }

    fn enter(&mut self, uniform: f64) -> Result<(usize, Sampled)> {
        self.model.forget();
        Ok((0, self.go_on(&self.prompt.clone(), uniform)?))
    }

    fn next(&mut self, rows: &[Row], uniforms: &[f64]) -> Result<Vec<Sampled>> {
        let pairs = rows.iter().zip(uniforms);
        pairs.map(|(row, uniform)| self.go_on(&row.tokens[row.tokens.len() - 1..], *uniform)).collect()
    }

    fn take_in(&mut self, _: usize, tokens: &[u32], uniform: f64) -> Result<Sampled> {
        self.go_on(tokens, uniform)
    }

    fn slots(&self) -> usize {
        1
    }

    fn leave(&mut self, _: usize) -> Option<RoutedExperts> {
        None
    }
}
