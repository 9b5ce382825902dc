//! What a run holds on a card: `DeviceModel`, `DeviceAdamW` and their workspace, and `Decoding`. What is trained is in bf16
//! with fp32 master values, a frozen base in bf16 alone.

use super::{Job, Plan, Sizes, Taught};
use crate::model::Phases;
use crate::ops::attention::cached::device as cached;
use crate::ops::delta::device::state_bytes;
use crate::ops::device::columns::partial_len;
use crate::ops::linear_logprob::device as linear_logprob;

pub(super) fn plan(s: &Sizes, job: &Job) -> Plan {
    let tables = 2 * s.positions * s.angles;
    let (trained, base, lora_hidden) =
        job.lora.map_or((s.weights, 0, 0), |lora| (lora.values, s.weights, lora.lora_hidden));
    Plan {
        weights: 4 * (trained + tables),
        copy: 2 * (trained + base),
        reference: if job.reference && job.lora.is_none() { 2 * s.weights } else { 0 },
        optimizer: job.moments.bytes(trained.div_ceil(job.ranks)),
        gradients: 4 * trained,
        activations: activations(s, job.tokens(), job.recompute) + 2 * 2 * lora_hidden * job.tokens(),
        logits: linear_logprob::chunk_bytes(s.vocab, job.tokens()),
        teacher: job.teacher.map_or(0, |teacher| taught(&teacher, job)),
        routed: job.routed,
        prefill: sampling(s, job, lora_hidden),
        // A sequence a row, and one for the prompt at hand.
        cache: (job.rows + 1) * (job.sequence * token_bytes(s) + s.states * s.delta.map_or(0, state_bytes)),
        ahead: 0,
        phases: Phases::InTurn,
    }
}

/// Bytes of a token's keys and values, or latents, in all layers that have some.
fn token_bytes(s: &Sizes) -> usize {
    let of_layer =
        s.card.attention.latent.map_or(2 * s.heads.key_value * s.heads.size, |latent| latent.sizes.compressed());
    2 * (s.layers - s.states) * of_layer
}

/// Bytes of a teacher: its weights, its tables, and what it makes of a micro-batch.
fn taught(Taught { sizes: s, .. }: &Taught, job: &Job) -> usize {
    let tables = 4 * 2 * s.positions * s.angles;
    let forward = job.tokens() * (attention(s) + feed_forward(s) + 2 * 3 * s.hidden);
    let scores = s.card.attention.score_bytes(job.tokens(), job.tokens());
    2 * s.weights + tables + forward + scores + linear_logprob::chunk_bytes(s.vocab, job.tokens())
}

/// Bytes a token of a layer beside its feed-forward part in a forward that keeps nothing.
fn attention(s: &Sizes) -> usize {
    normed(s) + s.card.attention.kept_bytes() + s.card.attention.forward_bytes()
}

/// Bytes a token that a layer keeps of its norms, and between them.
fn normed(s: &Sizes) -> usize {
    2 * 3 * s.hidden + 4 * 2
}

/// Bytes a token of a layer's feed-forward part in a forward that keeps nothing.
fn feed_forward(s: &Sizes) -> usize {
    s.card.mlp.kept_bytes() + s.card.mlp.forward_bytes(s.hidden)
}

/// Bytes that sampling takes beside its cache: the forward of a prompt or of all rows, and the logits.
fn sampling(s: &Sizes, job: &Job, lora_hidden: usize) -> usize {
    // Two streams that take turns, and the hidden states.
    let (rows, layer) = (job.prompt.max(job.rows), attention(s) + feed_forward(s));
    let forward = rows * (layer + 2 * (3 * s.hidden + lora_hidden) + 4);
    // A number and a draw.
    let row = 16;
    let logits = 4 * (linear_logprob::chunk_rows(s.vocab).min(job.rows) + 1) * s.vocab;
    let attention = match s.card.attention.latent {
        Some(_) => s.card.attention.score_bytes(rows, job.sequence),
        None => 4 * cached::partial_len(s.heads, job.rows, job.sequence),
    };
    forward + job.rows * row + logits + attention
}

/// Bytes of a micro-batch of `t` tokens, all of which predict a target.
fn activations(s: &Sizes, t: usize, recompute: bool) -> usize {
    let k = s.hidden;
    let kept = match recompute {
        true => normed(s) + s.card.attention.kept_bytes() + s.card.mlp.kept_bytes(),
        false => s.layers * normed(s) + s.card.kept,
    };
    let streams = 2 * k * (s.layers + 1);
    let shared = s.card.attention.forward_bytes() + s.card.attention.backward_bytes();
    let of_mlp = s.card.mlp.forward_bytes(k) + s.card.mlp.backward_bytes(k);
    let gradients = 2 * 5 * k + 4 + shared + of_mlp;
    // Tokens, positions, places, rows and targets going in; log-probabilities, their gradient, entropies and log-sum-exps.
    let head = 10 * 4;
    let partial = partial_len(k, t).max(s.card.attention.partial_len(s.heads, t));
    // Scores and their gradient.
    t * (kept + streams + gradients + head) + 4 * partial + 2 * s.card.attention.score_bytes(t, t)
}
