//! The forward of sampling on a device: prompts, and one token a row over a cache, through the model's own layers. All
//! rows are computed in one batch, and nothing but what routers choose by comes to the host between the layers. What is sampled, and which row is
//! where, is `rollout/`'s.

use std::ops::Range;

use anyhow::{Result, ensure};
use half::bf16;

use super::DeviceModel;
use super::decoder::{Context, Run};
use super::routers::RouterRecord;
use super::states::Memory;
use super::weights::DeviceWeights;
use super::workspace::Forward;
use crate::batch::RoutedExperts;
use crate::ops::attention::Segment;
use crate::ops::attention::cached::device::{Cache, Slot, Slots, partial_len};
use crate::ops::attention::packed::device as attention;
use crate::ops::delta::device::{Sequences, States};
use crate::ops::device::{Buffer, Class, View, products};
use crate::ops::linear_logprob::device::{chunk_rows, chunks};

/// What sampling needs room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodingRoom {
    /// Rows at a time, each in a slot.
    pub rows: usize,
    /// Tokens of the longest prompt.
    pub prompt: usize,
    /// Tokens of the longest sequence that a slot takes in.
    pub sequence: usize,
    /// Whether the experts of tokens are recorded, where they go to any.
    pub records: bool,
}

/// The memory of sampling, all of [`Class::Cache`], with the weights as they are: given back when dropped.
#[derive(Debug)]
pub struct Decoding<'a> {
    model: &'a DeviceModel,
    weights: DeviceWeights<'a>,
    room: DecodingRoom,
    /// A slot for each row, and one more for the prompt at hand.
    cache: Cache,
    /// In the same slots the states of delta nets, where layers are some.
    states: Option<States>,
    /// Tokens in each slot.
    cached: Vec<usize>,
    free: Vec<usize>,
    forward: Forward,
    /// The experts that the tokens in each slot went to, where they are recorded.
    routed: Vec<Option<RoutedExperts>>,
    /// Of attention over long slots.
    partial: Buffer<f32>,
    /// Of as many rows as the update's logits are computed for at a time, and the prompt's `(V)`.
    logits: Buffer<f32>,
    prompt_logits: Buffer<f32>,
}

impl DeviceModel {
    /// Takes the memory of sampling; that of training is given back before, so the two are never held at once.
    pub fn decoding(&self, room: DecodingRoom) -> Result<Decoding<'_>> {
        let DecodingRoom { rows, prompt, sequence, .. } = room;
        let (most, context) = (sequence.max(prompt), self.decoder.rope.positions());
        ensure!(most <= context, "a prompt and its completion take {most} tokens: the model's context has {context}");
        self.free_workspace();
        let (device, decoder, layers) = (&self.device, &self.decoder, self.layout.layers.len());
        let floats = |len: usize| device.buffer(Class::Cache, len);
        let states = decoder.delta.map(|sizes| States::new(device, sizes, decoder.states, rows + 1));
        Ok(Decoding {
            model: self,
            weights: self.weights()?,
            room,
            cache: match decoder.latent {
                Some((latent, _)) => Cache::of_latents(device, latent, layers, rows + 1, most)?,
                None => Cache::new(device, decoder.heads, layers - decoder.states, rows + 1, most)?,
            },
            states: states.transpose()?,
            cached: vec![0; rows + 1],
            free: (0..rows).collect(),
            forward: Forward::new(device, Class::Cache, decoder, &self.shape(false), (rows.max(prompt), most))?,
            routed: vec![None; rows + 1],
            partial: floats(if decoder.latent.is_some() { 0 } else { partial_len(decoder.heads, rows, most) })?,
            logits: floats(chunk_rows(self.vocabulary()).min(rows) * self.vocabulary())?,
            prompt_logits: floats(self.vocabulary())?,
        })
    }

    /// Takes in a prompt of `prompt` tokens, enters `rows` rows behind it and decodes the last token of a `sequence` for
    /// each: what takes most memory of sampling, and the kernels that do it.
    pub fn rehearse_sampling(&self, rows: usize, prompt: usize, sequence: usize) -> Result<()> {
        let mut decoding = self.decoding(DecodingRoom { rows, prompt, sequence, records: false })?;
        decoding.prefill(&vec![0; prompt])?;
        let slots = (0..rows).map(|_| decoding.enter()).collect::<Result<Vec<usize>>>()?;
        decoding.cached.fill(sequence - 1);
        decoding.decode(&vec![0; rows], &slots)?;
        decoding.parts(rows).try_for_each(|part| decoding.logits(part)?.part(0..1).read().map(drop))
    }
}

impl Decoding<'_> {
    /// The slot of the prompt at hand.
    fn prompt_slot(&self) -> usize {
        self.room.rows
    }

    /// Takes in a prompt, which is at hand from then on, in place of the one before.
    pub fn prefill(&mut self, tokens: &[u32]) -> Result<()> {
        let (count, slot) = (tokens.len(), self.prompt_slot());
        let segments = [Segment::alone(0..count)];
        let tiles = self.model.device.upload(Class::Cache, &attention::tiles(&segments))?;
        let places: Vec<(usize, usize)> = (0..count).map(|position| (slot, position)).collect();
        let slots = self.model.device.upload(Class::Cache, &self.slots(&places))?;
        if let Some(states) = &self.states {
            states.clear(slot)?;
        }
        let (cache, slots) = (&self.cache, slots.all());
        let context = Context::Prompt { segments: &segments, tiles: tiles.all(), cache, slots };
        let routed = self.run(tokens, &places, context)?;
        let k = self.model.decoder.hidden;
        self.lm_head(self.forward.hidden.part((count - 1) * k..count * k), self.prompt_logits.all())?;
        self.cached[slot] = count;
        self.routed[slot] = routed;
        Ok(())
    }

    /// `(V)` after the last token of the prompt at hand.
    pub fn prompt_logits(&self) -> View<'_, f32> {
        self.prompt_logits.all()
    }

    /// A slot for one more row behind the prompt at hand. There are as many slots as rows.
    pub fn enter(&mut self) -> Result<usize> {
        let (prompt, slot) = (self.prompt_slot(), self.free.pop().expect("there are as many slots as rows"));
        self.cached[slot] = self.cached[prompt];
        self.routed[slot] = self.routed[prompt].clone();
        self.cache.copy(prompt, slot, self.cached[slot])?;
        if let Some(states) = &self.states {
            states.copy(prompt, slot)?;
        }
        Ok(slot)
    }

    /// Takes in one token of the row in each of `slots`; [`Decoding::logits`] has what follows.
    pub fn decode(&mut self, tokens: &[u32], slots: &[usize]) -> Result<()> {
        let places: Vec<(usize, usize)> = slots.iter().map(|&slot| (slot, self.cached[slot])).collect();
        let routed = self.take(tokens, &places)?;
        slots.iter().for_each(|&slot| self.cached[slot] += 1);
        self.record(&places, routed.as_ref());
        Ok(())
    }

    /// Takes in `tokens` behind the row in `slot`, as many at a time as there may be rows; returns the row whose
    /// [`Decoding::logits`] are of what follows.
    pub fn take_in(&mut self, tokens: &[u32], slot: usize) -> Result<Range<usize>> {
        let mut last = 0;
        for tokens in tokens.chunks(self.room.rows) {
            let start = self.cached[slot];
            let places: Vec<(usize, usize)> = (start..start + tokens.len()).map(|position| (slot, position)).collect();
            let routed = self.take(tokens, &places)?;
            self.cached[slot] += tokens.len();
            self.record(&places, routed.as_ref());
            last = tokens.len() - 1;
        }
        Ok(last..last + 1)
    }

    /// Rows that there are slots for.
    pub fn rows(&self) -> usize {
        self.room.rows
    }

    /// Frees the slot of a row that has ended, and says which experts its tokens went to, where that was recorded: all
    /// but the last, which was not taken in.
    pub fn leave(&mut self, slot: usize) -> Option<RoutedExperts> {
        self.free.push(slot);
        self.routed[slot].take()
    }

    /// Takes in the experts of tokens that have come to `places`.
    fn record(&mut self, places: &[(usize, usize)], routed: Option<&RoutedExperts>) {
        for (token, &(slot, _)) in places.iter().enumerate() {
            if let (Some(of_slot), Some(routed)) = (&mut self.routed[slot], routed) {
                of_slot.extend(routed, token..token + 1);
            }
        }
    }

    /// The `count` rows of a decoding, cut so that the logits of each part have room.
    pub fn parts(&self, count: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        chunks(self.model.vocabulary(), count)
    }

    /// `(R, V)` of the rows of a part; they stay until the next.
    pub fn logits(&self, rows: Range<usize>) -> Result<View<'_, f32>> {
        let (k, logits) = (self.model.decoder.hidden, self.logits.part(0..rows.len() * self.model.vocabulary()));
        self.lm_head(self.forward.hidden.part(rows.start * k..rows.end * k), logits)?;
        Ok(logits)
    }

    fn slots(&self, places: &[(usize, usize)]) -> Vec<Slot> {
        places.iter().map(|&(slot, position)| self.cache.slot(slot, position)).collect()
    }

    /// Takes in one token for each of `places`, whose sequence the cache has up to there; returns as [`Decoding::run`].
    fn take(&self, tokens: &[u32], places: &[(usize, usize)]) -> Result<Option<RoutedExperts>> {
        let known = self.slots(places);
        let there = self.model.device.upload(Class::Cache, &known)?;
        let longest = places.iter().map(|&(_, position)| position + 1).max().unwrap_or(0);
        let (cache, partial, slots) = (&self.cache, self.partial.all(), Slots { known: &known, there: there.all() });
        self.run(tokens, places, Context::Cached { cache, slots, longest, partial })
    }

    /// The tokens of each slot, which follow each other.
    fn sequences(&self, places: &[(usize, usize)]) -> Result<Sequences> {
        let (mut first, mut runs) = (0, Vec::new());
        for same in places.chunk_by(|(one, _), (next, _)| one == next) {
            runs.push((first..first + same.len(), Some(same[0].0)));
            first += same.len();
        }
        Sequences::new(&self.model.device, Class::Cache, runs)
    }

    /// Leaves the hidden states of tokens; returns the experts that they went to, where these are recorded.
    fn run(&self, tokens: &[u32], places: &[(usize, usize)], context: Context) -> Result<Option<RoutedExperts>> {
        let Self { model, weights, forward: ws, .. } = self;
        model.check_tokens(tokens);
        let positions: Vec<u32> = places.iter().map(|&(_, position)| position as u32).collect();
        let (routers, t) = (RouterRecord::default(), tokens.len());
        if self.room.records {
            let mut routed = model.decoder.routed.map(RoutedExperts::new);
            routed.iter_mut().for_each(|routed| routed.resize(t));
            routers.notes.borrow_mut().routed = routed;
        }
        let (tokens, positions) =
            (model.device.upload(Class::Cache, tokens)?, model.device.upload(Class::Cache, &positions)?);
        let states = self.states.as_ref();
        let sequences = states.map(|_| self.sequences(places)).transpose()?;
        let memory = sequences.as_ref().map(|sequences| Memory { sequences, states });
        let run = Run { model, weights, t, positions: positions.all(), context, memory, routers: &routers, ws };
        run.hidden(tokens.all())?;
        Ok(routers.notes.into_inner().routed)
    }

    fn lm_head(&self, hidden: View<bf16>, logits: View<f32>) -> Result<()> {
        products::forward(hidden, self.weights.lm_head.values, logits, self.model.decoder.hidden, false)
    }
}
