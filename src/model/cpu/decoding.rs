//! The forward of sampling: prompts, and one token of many rows over a cache, through the decoder's own
//! layers. Its twin on a device is [`crate::model::device`]'s. What is sampled is left to `rollout/`.

use super::cache::{Cache, Sequence};
use super::decoder::{Context, Input};
use super::weights::PackedWeights;
use super::workspace::{Keep, Workspace};
use crate::model::decoder::Decoder;
use crate::ops::linear::Epilogue;
use crate::ops::memory;
use crate::ops::team::Team;

/// What a team samples in. Used again, because to get a cache anew from the system costs a tenth of the sampling.
#[derive(Debug, Default)]
pub struct DecodingMemory {
    cache: Cache,
    workspace: Workspace,
    logits: Vec<f32>,
}

impl DecodingMemory {
    /// Gives all of it back to the system.
    pub fn give_back(self) {
        self.cache.give_back();
        self.workspace.give_back();
        memory::give_back(self.logits);
    }
}

/// Rows being sampled by a team: each is a sequence in a slot, which begins with the prompt at hand.
#[derive(Debug)]
pub struct Decoding<'a> {
    team: &'a Team<'a>,
    decoder: &'a Decoder,
    weights: &'a PackedWeights<'a>,
    memory: DecodingMemory,
    slots: Vec<Sequence>,
    free: Vec<usize>,
    prompt: Sequence,
    /// `(V)` after the last token of the prompt at hand.
    prompt_logits: Vec<f32>,
}

impl<'a> Decoding<'a> {
    /// No rows yet, in memory that an earlier call left.
    pub fn new(
        team: &'a Team,
        decoder: &'a Decoder,
        weights: &'a PackedWeights<'a>,
        mut memory: DecodingMemory,
    ) -> Self {
        memory.cache.shape(decoder.cache_shape());
        let (slots, free, prompt) = (Vec::new(), Vec::new(), Sequence::default());
        Self { team, decoder, weights, memory, slots, free, prompt, prompt_logits: Vec::new() }
    }

    /// What the next call can use again, once every row has left.
    pub fn into_memory(mut self) -> DecodingMemory {
        self.memory.cache.free(&mut self.prompt);
        self.memory
    }

    /// Takes in a prompt, which is at hand from then on, in place of the one before.
    pub fn prefill(&mut self, tokens: &[u32]) {
        let DecodingMemory { cache, workspace, .. } = &mut self.memory;
        cache.free(&mut self.prompt);
        self.prompt = cache.begin(tokens.len());
        let positions: Vec<u32> = (0..tokens.len() as u32).collect();
        let context = Context::Prompt { cache, sequence: &self.prompt };
        let input = Input { tokens, positions: &positions };
        self.decoder.forward(self.team, self.weights, input, context, Keep::Nothing, workspace);
        self.prompt_logits.resize(self.weights.lm_head.outputs(), 0.0);
        let last = &workspace.hidden[workspace.hidden.len() - self.decoder.hidden..];
        self.weights.lm_head.forward(self.team, last, &mut self.prompt_logits, Epilogue::None);
    }

    /// `(V)` after the last token of the prompt at hand.
    pub fn prompt_logits(&self) -> &[f32] {
        &self.prompt_logits
    }

    /// A slot for one more row behind the prompt at hand.
    pub fn enter(&mut self) -> usize {
        let slot = self.free.pop().unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(Sequence::default());
        }
        self.slots[slot] = self.memory.cache.fork(&self.prompt);
        slot
    }

    /// Takes in one token of the row in each of `slots`; `(R, V)` are the logits of what follows.
    pub fn decode(&mut self, tokens: &[u32], slots: &[usize]) -> &mut [f32] {
        let DecodingMemory { cache, workspace, logits } = &mut self.memory;
        slots.iter().for_each(|&slot| cache.make_room(&mut self.slots[slot]));
        let sequences: Vec<&Sequence> = slots.iter().map(|&slot| &self.slots[slot]).collect();
        let positions: Vec<u32> = sequences.iter().map(|sequence| sequence.cached as u32).collect();
        let context = Context::Cached { cache, sequences: &sequences };
        let input = Input { tokens, positions: &positions };
        self.decoder.forward(self.team, self.weights, input, context, Keep::Nothing, workspace);
        slots.iter().for_each(|&slot| self.slots[slot].cached += 1);
        logits.resize(tokens.len() * self.weights.lm_head.outputs(), 0.0);
        self.weights.lm_head.forward(self.team, &workspace.hidden, logits, Epilogue::None);
        logits
    }

    /// Takes in `tokens` behind the row in `slot`; `(V)` are the logits of what follows.
    pub fn take_in(&mut self, tokens: &[u32], slot: usize) -> &mut [f32] {
        let DecodingMemory { cache, workspace, logits } = &mut self.memory;
        let row = &mut self.slots[slot];
        // Each token is the last one of the sequence that ends with it.
        let mut up_to_each = Vec::with_capacity(tokens.len());
        for _ in tokens {
            cache.make_room(row);
            up_to_each.push(row.clone());
            row.cached += 1;
        }
        let sequences: Vec<&Sequence> = up_to_each.iter().collect();
        let positions: Vec<u32> = sequences.iter().map(|sequence| sequence.cached as u32).collect();
        let context = Context::Cached { cache, sequences: &sequences };
        let input = Input { tokens, positions: &positions };
        self.decoder.forward(self.team, self.weights, input, context, Keep::Nothing, workspace);
        logits.resize(self.weights.lm_head.outputs(), 0.0);
        let last = &workspace.hidden[workspace.hidden.len() - self.decoder.hidden..];
        self.weights.lm_head.forward(self.team, last, logits, Epilogue::None);
        logits
    }

    /// Frees the slot of a row that has ended.
    pub fn leave(&mut self, slot: usize) {
        self.memory.cache.free(&mut self.slots[slot]);
        self.free.push(slot);
    }
}
