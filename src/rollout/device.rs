//! Sampling on a device: all rows in one batch. Tokens are chosen there too, and logits come to the host only where the
//! most likely ones have to be put in order.

use anyhow::Result;

use crate::batch::RoutedExperts;
use crate::model::DeviceModel;
use crate::model::device::{Decoding, DecodingRoom};
use crate::ops::device::{Buffer, Class, View};
use crate::ops::sample;
use crate::parallel::{Pool, map_in_order};

use super::engine::{Row, Runner};
use super::sampling::Sampled;
use super::{Request, Sampling};

/// The rows of one call, with all memory that it takes.
pub(super) struct DeviceRunner<'a> {
    decoding: Decoding<'a>,
    sampling: &'a Sampling,
    /// To choose on, where tokens are ordered on the host.
    threads: usize,
    uniforms: Buffer<f64>,
    sampled: Buffer<sample::Sampled>,
}

impl<'a> DeviceRunner<'a> {
    /// Room for `rows` rows of the completions of `request`.
    pub(super) fn new(model: &'a DeviceModel, request: &Request<'a>, rows: usize, threads: usize) -> Result<Self> {
        let Request { prompts, sampling, .. } = *request;
        let prompt = prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
        // The last token of a completion is sampled and never taken in.
        let sequence = prompt + sampling.max_new_tokens.saturating_sub(1);
        Ok(Self {
            decoding: model.decoding(DecodingRoom { rows, prompt, sequence, records: request.routed })?,
            sampling,
            threads,
            uniforms: model.device.buffer(Class::Cache, rows)?,
            sampled: model.device.buffer(Class::Cache, rows)?,
        })
    }

    /// A token for each row of `logits (R, V)`, by its number of `uniforms`.
    fn sample(&self, logits: View<f32>, uniforms: &[f64]) -> Result<Vec<Sampled>> {
        let rows = uniforms.len();
        let (numbers, sampled) = (self.uniforms.part(0..rows), self.sampled.part(0..rows));
        match self.sampling {
            Sampling { temperature, .. } if *temperature <= 0.0 => sample::argmax(logits, sampled)?,
            sampling if sampling.keeps_all() => {
                numbers.write(uniforms)?;
                sample::rows(logits, numbers, sampling.temperature, sampled)?;
            }
            _ => return self.sample_on_host(logits, uniforms),
        }
        let token = |[token, logprob]: sample::Sampled| Sampled { token, logprob: f32::from_bits(logprob) };
        Ok(sampled.read()?.into_iter().map(token).collect())
    }

    fn sample_on_host(&self, logits: View<f32>, uniforms: &[f64]) -> Result<Vec<Sampled>> {
        let logits = logits.read()?;
        let (columns, mut all) = (logits.len() / uniforms.len(), Vec::new());
        let sample = |(): &mut (), row: usize| {
            self.sampling.sample(&mut logits[row * columns..][..columns].to_vec(), uniforms[row])
        };
        map_in_order(uniforms.len(), self.threads, &Pool::default(), sample, |sampled| all.push(sampled));
        Ok(all)
    }
}

impl Runner for DeviceRunner<'_> {
    fn prefill(&mut self, tokens: &[u32]) -> Result<()> {
        self.decoding.prefill(tokens)
    }

    fn enter(&mut self, uniform: f64) -> Result<(usize, Sampled)> {
        let slot = self.decoding.enter()?;
        Ok((slot, self.sample(self.decoding.prompt_logits(), &[uniform])?[0]))
    }

    fn next(&mut self, rows: &[Row], uniforms: &[f64]) -> Result<Vec<Sampled>> {
        let tokens: Vec<u32> = rows.iter().filter_map(|row| row.tokens.last().copied()).collect();
        let slots: Vec<usize> = rows.iter().map(|row| row.slot).collect();
        self.decoding.decode(&tokens, &slots)?;
        let mut all = Vec::with_capacity(rows.len());
        for part in self.decoding.parts(rows.len()) {
            all.extend(self.sample(self.decoding.logits(part.clone())?, &uniforms[part])?);
        }
        Ok(all)
    }

    fn take_in(&mut self, slot: usize, tokens: &[u32], uniform: f64) -> Result<Sampled> {
        let last = self.decoding.take_in(tokens, slot)?;
        Ok(self.sample(self.decoding.logits(last)?, &[uniform])?[0])
    }

    fn slots(&self) -> usize {
        self.decoding.rows()
    }

    fn leave(&mut self, slot: usize) -> Option<RoutedExperts> {
        self.decoding.leave(slot)
    }
}
