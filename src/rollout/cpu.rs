//! Seats on a CPU: a thread's rows over a cache of blocks that the completions of one prompt share.

use anyhow::Result;

use crate::model::cpu::decoder::Packed;
use crate::model::{Decoder, PackedWeights, Workspace};
use crate::ops::attention::{Heads, Scratch, Segment, cached};
use crate::ops::linear::Onto;
use crate::ops::{LANES, rms_norm, swiglu};

use super::Sampling;
use super::engine::{Draw, Row, Seats};
use crate::model::cpu::cache::{self, BlockId, Cache};

/// What a thread samples in. Used again, because to get a cache anew from the system costs a tenth of the sampling.
#[derive(Default)]
pub struct Memory {
    cache: Cache,
    buffers: Buffers,
    scratch: Scratch,
    /// For prefilling.
    workspace: Workspace,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// Buffers of a decoding step.
#[derive(Default)]
struct Buffers {
    x: Vec<f32>,
    normed: Vec<f32>,
    qkv: Vec<f32>,
    raw: Vec<f32>,
    attended: Vec<f32>,
    gate_up: Vec<f32>,
    activated: Vec<f32>,
    logits: Vec<f32>,
}

/// A row's blocks.
pub(super) struct Seat {
    blocks: Vec<BlockId>,
    /// Tokens in the cache, the prompt's included.
    cached: usize,
}

/// The prompt at hand: its cache, and the logits after its last token.
struct Prefilled {
    seat: Seat,
    logits: Vec<f32>,
}

/// One thread's seats.
pub(super) struct CpuSeats<'a> {
    /// The engine's, keeping the keys and values of every layer when it prefills.
    decoder: &'a Decoder,
    packed: &'a PackedWeights<'a>,
    sampling: &'a Sampling,
    prefilled: Option<Prefilled>,
    memory: Memory,
}

impl<'a> CpuSeats<'a> {
    pub(super) fn new(
        decoder: &'a Decoder,
        packed: &'a PackedWeights<'a>,
        sampling: &'a Sampling,
        mut memory: Memory,
    ) -> Self {
        memory.cache.shape(packed.layers.len(), cached::block_len(decoder.heads));
        Self { decoder, packed, sampling, prefilled: None, memory }
    }

    /// What the next call can use again, once every row has left.
    pub(super) fn into_memory(mut self) -> Memory {
        self.forget_prompt();
        self.memory
    }

    fn forget_prompt(&mut self) {
        if let Some(old) = self.prefilled.take() {
            self.leave(old.seat);
        }
    }

    /// One forward of every row's last token; leaves the logits in the buffers.
    fn decode(&mut self, rows: &mut [Row<Seat>]) {
        let (decoder, packed) = (self.decoder, self.packed);
        let (heads, k, f, m) = (decoder.heads, decoder.hidden, decoder.intermediate, rows.len());
        for seat in rows.iter_mut().map(|row| &mut row.seat) {
            if seat.cached.is_multiple_of(LANES) {
                seat.blocks.push(self.memory.cache.take());
            }
        }
        let tokens: Vec<u32> = rows.iter().filter_map(|row| row.tokens.last().copied()).collect();
        let positions: Vec<u32> = rows.iter().map(|row| row.seat.cached as u32).collect();
        let b = &mut self.memory.buffers;
        for (buffer, width) in [
            (&mut b.x, k),
            (&mut b.normed, k),
            (&mut b.qkv, heads.row()),
            (&mut b.attended, heads.output()),
            (&mut b.gate_up, 2 * f),
            (&mut b.activated, f),
            (&mut b.logits, packed.head.outputs()),
        ] {
            buffer.resize(m * width, 0.0);
        }
        packed.embedding.forward(&tokens, k, &mut b.x);
        for (index, layer) in packed.layers.iter().enumerate() {
            rms_norm::forward(&b.x, layer.attention_norm.values, decoder.eps, &mut b.normed);
            decoder.project_qkv(layer, &b.normed, &mut b.qkv, &mut b.raw);
            decoder.rope.rotate(&mut b.qkv, &positions, heads.query + heads.key_value, heads.row());
            attend(heads, rows, index, &mut self.memory.cache, &b.qkv, &mut b.attended, &mut self.memory.scratch);
            layer.output.forward(&b.attended, &mut b.x, Onto::Held);
            rms_norm::forward(&b.x, layer.mlp_norm.values, decoder.eps, &mut b.normed);
            layer.gate_up.forward(&b.normed, &mut b.gate_up, Onto::Nothing);
            swiglu::forward(&b.gate_up, f, &mut b.activated);
            layer.down.forward(&b.activated, &mut b.x, Onto::Held);
        }
        rms_norm::forward(&b.x, packed.norm.values, decoder.eps, &mut b.normed);
        packed.head.forward(&b.normed, &mut b.logits, Onto::Nothing);
        rows.iter_mut().for_each(|row| row.seat.cached += 1);
    }
}

impl Seats for CpuSeats<'_> {
    type Seat = Seat;

    fn prefill(&mut self, tokens: &[u32]) -> Result<()> {
        self.forget_prompt();
        let (decoder, packed) = (self.decoder, self.packed);
        let positions: Vec<u32> = (0..tokens.len() as u32).collect();
        let input = Packed { tokens, positions: &positions, segments: &[Segment::alone(0..tokens.len())] };
        decoder.forward(packed, input, &mut self.memory.workspace);
        let blocks: Vec<BlockId> = (0..cache::blocks(tokens.len())).map(|_| self.memory.cache.take()).collect();
        for (layer, qkv) in self.memory.workspace.qkv().enumerate() {
            for (position, qkv) in qkv.chunks_exact(decoder.heads.row()).enumerate() {
                let block = self.memory.cache.layer_mut(blocks[position / LANES], layer);
                cached::put(decoder.heads, qkv, position, block);
            }
        }
        let mut logits = vec![0f32; packed.head.outputs()];
        let hidden = &self.memory.workspace.hidden;
        packed.head.forward(&hidden[hidden.len() - decoder.hidden..], &mut logits, Onto::Nothing);
        self.prefilled = Some(Prefilled { seat: Seat { blocks, cached: tokens.len() }, logits });
        Ok(())
    }

    fn enter(&mut self, uniform: f64) -> Result<(Seat, Draw)> {
        let prompt = self.prefilled.as_ref().expect("a prompt is at hand before a row enters");
        let cached = prompt.seat.cached;
        let seat = Seat { blocks: self.memory.cache.fork(&prompt.seat.blocks, cached), cached };
        Ok((seat, self.sampling.draw(&mut prompt.logits.clone(), uniform)))
    }

    fn next(&mut self, rows: &mut [Row<Seat>], uniforms: &[f64]) -> Result<Vec<Draw>> {
        self.decode(rows);
        let logits = self.memory.buffers.logits.chunks_exact_mut(self.packed.head.outputs());
        Ok(logits.zip(uniforms).map(|(z, &uniform)| self.sampling.draw(z, uniform)).collect())
    }

    fn leave(&mut self, seat: Seat) {
        seat.blocks.into_iter().for_each(|id| self.memory.cache.release(id));
    }
}

/// Puts every row's new key and value into its cache, then attends over it.
fn attend(
    heads: Heads,
    rows: &[Row<Seat>],
    layer: usize,
    cache: &mut Cache,
    qkv: &[f32],
    attended: &mut [f32],
    scratch: &mut Scratch,
) {
    let buffers = qkv.chunks_exact(heads.row()).zip(attended.chunks_exact_mut(heads.output()));
    for (Row { seat, .. }, (qkv, out)) in rows.iter().zip(buffers) {
        let block = cache.layer_mut(seat.blocks[seat.cached / LANES], layer);
        cached::put(heads, qkv, seat.cached, block);
        cached::decode(heads, qkv, seat.cached + 1, &|b| cache.layer(seat.blocks[b], layer), out, scratch);
    }
}
