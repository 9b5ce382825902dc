//! The forward of sampling on a device: prompts, and one token a row over a cache, through the model's own layers. All
//! rows are computed in one batch and nothing comes to the host between the layers. What is sampled, and which row sits
//! where, is `rollout/`'s.

use super::*;
use crate::ops::attention::Segment;
use crate::ops::attention::cached::device::partial_len;
use crate::ops::device::products;
use crate::ops::linear_logprob::device::{chunk_rows, chunks};

/// What sampling needs room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodingRoom {
    /// Rows at a time, a seat each.
    pub rows: usize,
    /// Tokens of the longest prompt.
    pub prompt: usize,
    /// Tokens of the longest sequence that a seat takes in.
    pub sequence: usize,
}

/// The memory of sampling, all of [`Class::Cache`], with the weights as they are: given back when dropped.
#[derive(Debug)]
pub struct Decoding<'a> {
    model: &'a DeviceModel,
    weights: DeviceWeights<'a>,
    room: DecodingRoom,
    /// A seat a row, and one more for the prompt at hand.
    cache: Cache,
    forward: Forward,
    /// Of attention over long seats.
    partial: Buffer<f32>,
    /// Of as many rows as the update's logits are computed for at a time, and the prompt's `(V)`.
    logits: Buffer<f32>,
    prompt_logits: Buffer<f32>,
}

impl DeviceModel {
    /// Takes the memory of sampling; that of training is given back before, so the two are never held at once.
    pub fn decoding(&self, room: DecodingRoom) -> Result<Decoding<'_>> {
        let DecodingRoom { rows, prompt, sequence } = room;
        let (most, context) = (sequence.max(prompt), self.decoder.rope.positions());
        ensure!(most <= context, "a prompt and its completion take {most} tokens: the model's context has {context}");
        self.free_workspace();
        let (device, decoder, layers) = (&self.device, &self.decoder, self.layout.layers.len());
        let floats = |len: usize| device.buffer(Class::Cache, len);
        Ok(Decoding {
            model: self,
            weights: self.weights(),
            room,
            cache: Cache::new(device, decoder.heads, layers, rows + 1, most)?,
            forward: Forward::new(device, Class::Cache, decoder, 0, self.extra(), rows.max(prompt))?,
            partial: floats(partial_len(decoder.heads, rows, most))?,
            logits: floats(chunk_rows(self.vocabulary()).min(rows) * self.vocabulary())?,
            prompt_logits: floats(self.vocabulary())?,
        })
    }

    /// Takes in a prompt of `prompt` tokens, enters `rows` rows behind it and decodes the last token of a `sequence` for
    /// each: what takes most memory of sampling, and the kernels that do it.
    pub fn rehearse_sampling(&self, rows: usize, prompt: usize, sequence: usize) -> Result<()> {
        let decoding = self.decoding(DecodingRoom { rows, prompt, sequence })?;
        decoding.prefill(&vec![0; prompt])?;
        (0..rows).try_for_each(|seat| decoding.enter(seat, prompt))?;
        let places: Vec<(usize, usize)> = (0..rows).map(|seat| (seat, sequence - 1)).collect();
        decoding.decode(&vec![0; rows], &places)?;
        decoding.parts(rows).try_for_each(|part| decoding.logits(part)?.part(0..1).read().map(drop))
    }
}

impl Decoding<'_> {
    /// The seat that the prompt at hand has.
    fn prompt_seat(&self) -> usize {
        self.room.rows
    }

    /// Takes in a prompt, which is at hand from then on.
    pub fn prefill(&self, tokens: &[u32]) -> Result<()> {
        let (count, seat) = (tokens.len(), self.prompt_seat());
        let tiles = self.model.device.upload(Class::Cache, &attention::tiles(&[Segment::alone(0..count)]))?;
        let places: Vec<(usize, usize)> = (0..count).map(|position| (seat, position)).collect();
        let slots = self.upload_slots(&places)?;
        let attention = Attention::Prompt { tiles: tiles.all(), cache: &self.cache, slots: slots.all() };
        let hidden = self.hidden(tokens, &places, attention)?;
        let last = hidden.part((count - 1) * self.model.decoder.hidden..hidden.len());
        self.head(last, self.prompt_logits.all())
    }

    /// `(V)` after the last token of the prompt at hand.
    pub fn prompt_logits(&self) -> View<'_, f32> {
        self.prompt_logits.all()
    }

    /// Gives a row's seat what the prompt at hand, of `count` tokens, has left.
    pub fn enter(&self, seat: usize, count: usize) -> Result<()> {
        self.cache.copy(self.prompt_seat(), seat, count)
    }

    /// Takes in a token of each row at its `(seat, position)`; [`Decoding::logits`] has what follows.
    pub fn decode(&self, tokens: &[u32], places: &[(usize, usize)]) -> Result<()> {
        let slots = self.upload_slots(places)?;
        let longest = places.iter().map(|&(_, position)| position + 1).max().unwrap_or(0);
        let (cache, partial) = (&self.cache, self.partial.all());
        let attention = Attention::Seats { cache, slots: slots.all(), longest, partial };
        self.hidden(tokens, places, attention).map(drop)
    }

    /// The `count` rows of a decoding, cut so that the logits of each part have room.
    pub fn parts(&self, count: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        chunks(self.model.vocabulary(), count)
    }

    /// `(R, V)` of the rows of a part; they stay until the next.
    pub fn logits(&self, rows: Range<usize>) -> Result<View<'_, f32>> {
        let (k, logits) = (self.model.decoder.hidden, self.logits.part(0..rows.len() * self.model.vocabulary()));
        self.head(self.forward.hidden.part(rows.start * k..rows.end * k), logits)?;
        Ok(logits)
    }

    fn upload_slots(&self, places: &[(usize, usize)]) -> Result<Buffer<Slot>> {
        let slots: Vec<Slot> = places.iter().map(|&(seat, position)| self.cache.slot(seat, position)).collect();
        self.model.device.upload(Class::Cache, &slots)
    }

    fn hidden(&self, tokens: &[u32], places: &[(usize, usize)], attention: Attention) -> Result<View<'_, bf16>> {
        let Self { model, weights, forward: ws, .. } = self;
        model.check_tokens(tokens);
        let positions: Vec<u32> = places.iter().map(|&(_, position)| position as u32).collect();
        let (tokens, positions) =
            (model.device.upload(Class::Cache, tokens)?, model.device.upload(Class::Cache, &positions)?);
        let run = Run { model, weights, t: tokens.all().len(), positions: positions.all(), attention, ws };
        run.hidden(tokens.all())?;
        Ok(ws.hidden.part(0..tokens.all().len() * model.decoder.hidden))
    }

    fn head(&self, hidden: View<bf16>, logits: View<f32>) -> Result<()> {
        products::forward(hidden, self.weights.head.values, logits, self.model.decoder.hidden, false)
    }
}
