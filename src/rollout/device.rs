//! Seats on a device: all rows in one batch over a slab of cache. Tokens are drawn there too, and logits come to the host
//! only where a draw has to order them.

use anyhow::Result;

use crate::model::{Decoding, DecodingRoom, DeviceModel};
use crate::ops::device::{Buffer, Class, View};
use crate::ops::draw;
use crate::parallel::{Pool, map_in_order};

use super::engine::{Draw, Row, Seats};
use super::{Prompt, Sampling};

/// A row's place in the cache.
pub(super) struct Seat {
    index: usize,
    /// Tokens that it holds, the prompt's included.
    cached: usize,
}

/// The seats of one call, with all memory that it takes.
pub(super) struct DeviceSeats<'a> {
    decoding: Decoding<'a>,
    sampling: &'a Sampling,
    /// To draw on, where tokens are ordered on the host.
    threads: usize,
    free: Vec<usize>,
    /// Tokens of the prompt at hand.
    prompt: usize,
    uniforms: Buffer<f64>,
    draws: Buffer<draw::Draw>,
}

impl<'a> DeviceSeats<'a> {
    /// Seats for `rows` rows of completions of `prompts`.
    pub(super) fn new(
        model: &'a DeviceModel,
        prompts: &[Prompt],
        sampling: &'a Sampling,
        rows: usize,
        threads: usize,
    ) -> Result<Self> {
        let prompt = prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
        // The last token of a completion is drawn and never taken in.
        let sequence = prompt + sampling.max_new_tokens.saturating_sub(1);
        Ok(Self {
            decoding: model.decoding(DecodingRoom { rows, prompt, sequence })?,
            sampling,
            threads,
            free: (0..rows).collect(),
            prompt: 0,
            uniforms: model.device.buffer(Class::Cache, rows)?,
            draws: model.device.buffer(Class::Cache, rows)?,
        })
    }

    /// A token for each row of `logits (R, V)`, by its number of `uniforms`.
    fn draw(&self, logits: View<f32>, uniforms: &[f64]) -> Result<Vec<Draw>> {
        let rows = uniforms.len();
        let (numbers, draws) = (self.uniforms.part(0..rows), self.draws.part(0..rows));
        match self.sampling {
            Sampling { temperature, .. } if *temperature <= 0.0 => draw::likeliest(logits, draws)?,
            sampling if sampling.keeps_all() => {
                numbers.write(uniforms)?;
                draw::any(logits, numbers, sampling.temperature, draws)?;
            }
            _ => return self.draw_on_host(logits, uniforms),
        }
        Ok(draws.read()?.into_iter().map(|[token, logprob]| (token, f32::from_bits(logprob))).collect())
    }

    fn draw_on_host(&self, logits: View<f32>, uniforms: &[f64]) -> Result<Vec<Draw>> {
        let logits = logits.read()?;
        let (columns, mut draws) = (logits.len() / uniforms.len(), Vec::new());
        let draw = |(): &mut (), row: usize| {
            self.sampling.draw(&mut logits[row * columns..][..columns].to_vec(), uniforms[row])
        };
        map_in_order(uniforms.len(), self.threads, &Pool::default(), draw, |draw| draws.push(draw));
        Ok(draws)
    }
}

impl Seats for DeviceSeats<'_> {
    type Seat = Seat;

    fn prefill(&mut self, tokens: &[u32]) -> Result<()> {
        self.prompt = tokens.len();
        self.decoding.prefill(tokens)
    }

    fn enter(&mut self, uniform: f64) -> Result<(Seat, Draw)> {
        let index = self.free.pop().expect("there are as many seats as rows");
        self.decoding.enter(index, self.prompt)?;
        let draw = self.draw(self.decoding.prompt_logits(), &[uniform])?[0];
        Ok((Seat { index, cached: self.prompt }, draw))
    }

    fn next(&mut self, rows: &mut [Row<Seat>], uniforms: &[f64]) -> Result<Vec<Draw>> {
        let tokens: Vec<u32> = rows.iter().filter_map(|row| row.tokens.last().copied()).collect();
        let places: Vec<(usize, usize)> = rows.iter().map(|row| (row.seat.index, row.seat.cached)).collect();
        self.decoding.decode(&tokens, &places)?;
        rows.iter_mut().for_each(|row| row.seat.cached += 1);
        let mut draws = Vec::with_capacity(rows.len());
        for part in self.decoding.parts(rows.len()) {
            draws.extend(self.draw(self.decoding.logits(part.clone())?, &uniforms[part])?);
        }
        Ok(draws)
    }

    fn leave(&mut self, seat: Seat) {
        self.free.push(seat.index);
    }
}
