//! What a run holds on a card: `DeviceModel`, `DeviceAdamW` and their workspace, and `Decoding`. What is trained is in bf16
//! with fp32 master values, a frozen base in bf16 alone.

use super::{Job, Plan, Sizes, Taught};
use crate::model::Phases;
use crate::model::latent::LatentShape;
use crate::ops::attention::cached::device as cached;
use crate::ops::attention::latent::device as latent;
use crate::ops::device::columns::partial_len;
use crate::ops::linear_logprob::device as linear_logprob;

pub(super) fn plan(s: &Sizes, job: &Job) -> Plan {
    let tables = tables(s);
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
        cache: (job.rows + 1) * job.sequence * s.layers * Attention::of(s).cached,
        ahead: 0,
        phases: Phases::InTurn,
    }
}

/// Values of the tables of angles, cosines and sines.
fn tables(s: &Sizes) -> usize {
    s.positions * s.latent.map_or(s.heads.size, |latent| latent.sizes.rotated)
}

/// Bytes of a teacher: its weights, its tables, and what it makes of a micro-batch.
fn taught(Taught { sizes: s, .. }: &Taught, job: &Job) -> usize {
    let forward = job.tokens() * (layer(s) + feed_forward(s) + Attention::of(s).inputs + 2 * 3 * s.hidden);
    let scores = scores(s, job.tokens(), job.tokens());
    2 * s.weights + 4 * tables(s) + forward + scores + linear_logprob::chunk_bytes(s.vocab, job.tokens())
}

/// Bytes a token that differ from one kind of attention to another.
struct Attention {
    /// Left by a layer.
    layer: usize,
    /// What products take in, of the layer at hand.
    inputs: usize,
    /// Gradients between its operations.
    gradients: usize,
    /// Left by a layer in a cache.
    cached: usize,
}

impl Attention {
    fn of(s: &Sizes) -> Self {
        let heads = s.heads;
        let Some(LatentShape { sizes: latent, query_rank, .. }) = s.latent else {
            let head_norms = if s.head_norms { 2 * heads.row() + 4 * (heads.query + heads.key_value) } else { 0 };
            let (layer, cached) = (2 * heads.row() + head_norms, 2 * 2 * heads.key_value * heads.size);
            return Self { layer, inputs: 0, gradients: 2 * heads.row(), cached };
        };
        let (rank, size) = (query_rank.unwrap_or(0), latent.compressed());
        let projected = latent.queries() + rank + size + heads.query * size;
        Self {
            // With the factors of norms.
            layer: 2 * (projected + size) + 4 * (1 + rank.min(1)),
            inputs: 2 * (rank + latent.outputs()),
            // Keys have one in fp32 too.
            gradients: 2 * (projected + latent.outputs()) + 4 * size,
            cached: 2 * size,
        }
    }
}

/// Bytes of the scores of attention over latents, of up to `queries` queries that see up to `longest` keys.
fn scores(s: &Sizes, queries: usize, longest: usize) -> usize {
    s.latent.map_or(0, |shape| (4 + 2) * latent::scratch_len(shape.sizes, queries, longest))
}

/// Bytes a token that a layer leaves beside its feed-forward part.
fn layer(s: &Sizes) -> usize {
    let (k, heads) = (s.hidden, s.heads);
    2 * (3 * k + heads.output()) + 4 * (heads.query + 2) + Attention::of(s).layer
}

/// Bytes a token of a layer's feed-forward part in a forward that keeps nothing.
fn feed_forward(s: &Sizes) -> usize {
    s.widths.kept_bytes() + s.widths.forward_bytes(s.hidden)
}

/// Bytes that sampling takes beside its cache: the forward of a prompt or of all rows, and the logits.
fn sampling(s: &Sizes, job: &Job, lora_hidden: usize) -> usize {
    // Two streams that take turns, and the hidden states.
    let rows = job.prompt.max(job.rows);
    let layer = layer(s) + feed_forward(s) + Attention::of(s).inputs;
    let forward = rows * (layer + 2 * (3 * s.hidden + lora_hidden) + 4);
    // A number and a draw.
    let row = 16;
    let logits = 4 * (linear_logprob::chunk_rows(s.vocab).min(job.rows) + 1) * s.vocab;
    let attention = match s.latent {
        Some(_) => scores(s, rows, job.sequence),
        None => 4 * cached::partial_len(s.heads, job.rows, job.sequence),
    };
    forward + job.rows * row + logits + attention
}

/// Bytes of a micro-batch of `t` tokens, all of which predict a target.
fn activations(s: &Sizes, t: usize, recompute: bool) -> usize {
    let (k, heads) = (s.hidden, s.heads);
    let kept = match recompute {
        true => layer(s) + s.widths.kept_bytes(),
        false => s.layers * layer(s) + s.kept_by_all,
    };
    let streams = 2 * k * (s.layers + 1);
    let (attention, shared) = (Attention::of(s), s.widths.forward_bytes(k) + s.widths.backward_bytes(k));
    let gradients =
        2 * (5 * k + heads.output()) + 4 * (1 + heads.query) + attention.gradients + attention.inputs + shared;
    // Tokens, positions, rows and targets going in; log-probabilities, their gradient, entropies and log-sum-exps.
    let head = 8 * 4;
    let partial = match s.latent {
        Some(shape) => partial_len(k.max(shape.sizes.rank).max(shape.query_rank.unwrap_or(0)), t),
        None => partial_len(k.max(heads.row()), t).max(partial_len(heads.size, t * heads.query)),
    };
    // Scores and their gradient.
    t * (kept + streams + gradients + head) + 4 * partial + 2 * scores(s, t, t)
}
