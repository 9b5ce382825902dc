//! The forward of sampling: prompts, and one token of many rows over a cache, through the decoder's own
//! layers. Its twin on a device is [`crate::model::device`]'s. What is sampled is left to `rollout/`.

use std::ops::Range;

use super::cache::{Cache, Sequence};
use super::decoder::{Context, Input};
use super::weights::PackedWeights;
use super::workspace::{Keep, Workspace};
use crate::batch::RoutedExperts;
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

/// A row's place in the cache, and the experts that its tokens went to, where they are recorded.
#[derive(Debug, Default)]
struct Slot {
    sequence: Sequence,
    routed: Option<RoutedExperts>,
}

impl Slot {
    /// Takes in the experts of some tokens of a forward.
    fn record(&mut self, of_forward: Option<&RoutedExperts>, tokens: Range<usize>) {
        if let (Some(routed), Some(more)) = (&mut self.routed, of_forward) {
            routed.extend(more, tokens);
        }
    }
}

/// Rows being sampled by a team: each is a sequence in a slot, which begins with the prompt at hand.
#[derive(Debug)]
pub struct Decoding<'a> {
    team: &'a Team<'a>,
    decoder: &'a Decoder,
    weights: &'a PackedWeights<'a>,
    memory: DecodingMemory,
    slots: Vec<Slot>,
    free: Vec<usize>,
    prompt: Slot,
    /// `(V)` after the last token of the prompt at hand.
    prompt_logits: Vec<f32>,
}

impl<'a> Decoding<'a> {
    /// No rows yet, in memory that an earlier call left. `records` says whether the experts of tokens are kept, where
    /// they go to any.
    pub fn new(
        team: &'a Team,
        decoder: &'a Decoder,
        weights: &'a PackedWeights<'a>,
        mut memory: DecodingMemory,
        records: bool,
    ) -> Self {
        memory.cache.shape(decoder.cache_shape());
        memory.workspace.routed = decoder.routed.filter(|_| records).map(RoutedExperts::new);
        let (slots, free, prompt) = (Vec::new(), Vec::new(), Slot::default());
        Self { team, decoder, weights, memory, slots, free, prompt, prompt_logits: Vec::new() }
    }

    /// What the next call can use again, once every row has left.
    pub fn into_memory(mut self) -> DecodingMemory {
        self.memory.cache.free(&mut self.prompt.sequence);
        self.memory
    }

    /// Takes in a prompt, which is at hand from then on, in place of the one before.
    pub fn prefill(&mut self, tokens: &[u32]) {
        let DecodingMemory { cache, workspace, .. } = &mut self.memory;
        let prompt = &mut self.prompt.sequence;
        cache.free(prompt);
        *prompt = cache.begin(tokens.len());
        let positions: Vec<u32> = (0..tokens.len() as u32).collect();
        let context = Context::Prompt { cache, sequence: prompt };
        let input = Input::new(tokens, &positions);
        self.decoder.forward(self.team, self.weights, input, context, Keep::Nothing, workspace);
        self.prompt.routed.clone_from(&workspace.routed);
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
            self.slots.push(Slot::default());
        }
        let Slot { sequence, routed } = &self.prompt;
        self.slots[slot] = Slot { sequence: self.memory.cache.fork(sequence), routed: routed.clone() };
        slot
    }

    /// Takes in one token of the row in each of `slots`; `(R, V)` are the logits of what follows.
    pub fn decode(&mut self, tokens: &[u32], slots: &[usize]) -> &mut [f32] {
        let DecodingMemory { cache, workspace, logits } = &mut self.memory;
        slots.iter().for_each(|&slot| cache.make_room(&mut self.slots[slot].sequence));
        let sequences: Vec<&Sequence> = slots.iter().map(|&slot| &self.slots[slot].sequence).collect();
        let positions: Vec<u32> = sequences.iter().map(|sequence| sequence.cached as u32).collect();
        let context = Context::Cached { cache, sequences: &sequences };
        let input = Input::new(tokens, &positions);
        self.decoder.forward(self.team, self.weights, input, context, Keep::Nothing, workspace);
        for (row, &slot) in slots.iter().enumerate() {
            self.slots[slot].sequence.cached += 1;
            self.slots[slot].record(workspace.routed.as_ref(), row..row + 1);
        }
        logits.resize(tokens.len() * self.weights.lm_head.outputs(), 0.0);
        self.weights.lm_head.forward(self.team, &workspace.hidden, logits, Epilogue::None);
        logits
    }

    /// Takes in `tokens` behind the row in `slot`; `(V)` are the logits of what follows.
    pub fn take_in(&mut self, tokens: &[u32], slot: usize) -> &mut [f32] {
        let DecodingMemory { cache, workspace, logits } = &mut self.memory;
        let row = &mut self.slots[slot].sequence;
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
        let input = Input::new(tokens, &positions);
        self.decoder.forward(self.team, self.weights, input, context, Keep::Nothing, workspace);
        self.slots[slot].record(workspace.routed.as_ref(), 0..tokens.len());
        logits.resize(self.weights.lm_head.outputs(), 0.0);
        let last = &workspace.hidden[workspace.hidden.len() - self.decoder.hidden..];
        self.weights.lm_head.forward(self.team, last, logits, Epilogue::None);
        logits
    }

    /// Frees the slot of a row that has ended, and says which experts its tokens went to, where that was recorded: all
    /// but the last, which was not taken in.
    pub fn leave(&mut self, slot: usize) -> Option<RoutedExperts> {
        self.memory.cache.free(&mut self.slots[slot].sequence);
        self.free.push(slot);
        self.slots[slot].routed.take()
    }
}
