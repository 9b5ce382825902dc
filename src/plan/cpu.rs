//! What a run holds on a CPU, in fp32 but for a frozen base, moments of eight bits and the operands of bf16 products:
//! `CpuLearner`, `AdamW`, `model/cpu/workspace.rs` and `model/cpu/decoding.rs`.

use super::{Job, Plan, Sizes, Taught};
use crate::model::Sharing;
use crate::model::cpu::cache;
use crate::ops::delta;
use crate::ops::linear::Precision;
use crate::ops::linear_logprob;

pub(super) fn plan(s: &Sizes, job: &Job) -> Plan {
    // Work of several micro-batches goes on at a time, or of one.
    let sharing = Sharing::of(s.weights);
    let (at_a_time, gradients) = match sharing {
        // A buffer for each thread, one that waits for its turn, and their sum.
        Sharing::MicroBatches => (job.threads, job.threads + 2),
        Sharing::Operations => (1, 1),
    };
    let operand = match job.precision {
        Precision::Fp32 => 4,
        Precision::Bf16 => 2,
    };
    let (trained, base, packed, reference) = match job.lora {
        None => (s.weights, 0, operand * s.packed, (4 + operand) * s.weights),
        Some(lora) => {
            let base = if job.precision == Precision::Bf16 { operand * s.weights } else { lora.base_bytes };
            (lora.values, base, operand * lora.values, 0)
        }
    };
    let prefill = 4 * (at_a_time * prefill(s, job, at_a_time) + (job.rows + 2 * at_a_time) * s.vocab);
    let cache = 4 * at_a_time * cache(s, job, at_a_time);
    Plan {
        weights: 4 * trained,
        copy: base + packed,
        reference: if job.reference { reference } else { 0 },
        optimizer: job.moments.bytes(trained.div_ceil(job.ranks)),
        gradients: 4 * trained * gradients,
        activations: at_a_time * (4 * activations(s, job) + rounded(s, job)) + 4 * job.threads * states(s, job),
        // A chunk for each micro-batch.
        logits: 4 * at_a_time * linear_logprob::chunk_values(s.vocab),
        teacher: job.teacher.map_or(0, |teacher| taught(&teacher, job, at_a_time)),
        routed: job.routed,
        prefill,
        cache,
        // A frozen base is shared. Evaluations and the first step are sampled in the policy's own memory.
        ahead: if job.ahead { 4 * trained + packed + prefill + cache } else { 0 },
        phases: sharing.phases(),
    }
}

/// Bytes of a teacher: its weights as they are multiplied, and what it makes of the micro-batches under way, of which it
/// keeps nothing, with the logits of a chunk. Of sampled tokens it has threads of its own to share.
fn taught(teacher: &Taught, job: &Job, at_a_time: usize) -> usize {
    let Taught { sizes: s, base_bytes, full } = teacher;
    let under_way = match (full, Sharing::of(s.weights)) {
        (true, _) => at_a_time,
        (false, Sharing::MicroBatches) => job.threads,
        (false, Sharing::Operations) => 1,
    };
    // Two streams that take turns, the hidden states, and the rows that predict.
    let forward = job.tokens() * (layer(s) + inputs(s) + 4 * s.hidden);
    base_bytes + 4 * under_way * (forward + linear_logprob::chunk_values(s.vocab))
}

/// Bytes of the operands that a thread rounds for its products: one side of a forward or of the input's gradient, and both
/// of a weight's gradient.
fn rounded(s: &Sizes, job: &Job) -> usize {
    let widest = job.tokens() * s.mlp.widest.max(s.attention.widest);
    let left = widest.max(linear_logprob::chunk_values(s.vocab));
    match job.precision {
        Precision::Fp32 => 0,
        Precision::Bf16 => 2 * (2 * left + job.tokens() * (s.mlp.widest / 2).max(s.hidden)),
    }
}

/// Values a token that a layer keeps at most.
fn layer(s: &Sizes) -> usize {
    2 * s.hidden + s.attention.kept + s.mlp.kept
}

/// Values a token of the inputs that products compute again.
fn inputs(s: &Sizes) -> usize {
    s.hidden + s.mlp.inputs + s.attention.inputs
}

/// Values of the largest micro-batch: kept by the layers, their gradients, and six rows of the hidden states' width.
fn activations(s: &Sizes, job: &Job) -> usize {
    let kept = match job.recompute {
        true => s.layers * s.hidden + layer(s),
        false => s.layers * 2 * s.hidden + s.attention.kept_by_all + s.mlp.kept_by_all,
    };
    let gradients = s.mlp.gradients + s.hidden + s.attention.gradients;
    job.tokens() * (kept + inputs(s) + gradients + 6 * s.hidden)
}

/// Values that a thread keeps of the states of a delta net's head in a backward.
fn states(s: &Sizes, job: &Job) -> usize {
    s.delta.map_or(0, |delta| delta::memory_of_thread(delta, job.sequence))
}

/// Values of one layer at a time, of a prompt or of a team's rows: two streams that take turns, and the hidden states.
/// Beside it are logits, for each row, and for each team those of a prompt and a copy of them.
fn prefill(s: &Sizes, job: &Job, at_a_time: usize) -> usize {
    job.prompt.max(job.rows.div_ceil(at_a_time)) * (layer(s) + inputs(s) + 2 * s.hidden)
}

/// Bytes that a cache has of a sequence of so many tokens.
pub(super) fn sequence_bytes(s: &Sizes, tokens: usize) -> usize {
    4 * (cache::blocks(tokens) * s.attention.block + s.attention.state)
}

/// Values of one of the caches: blocks and states for its share of the rows and for the prompt that is at hand.
fn cache(s: &Sizes, job: &Job, at_a_time: usize) -> usize {
    let rows = job.rows.div_ceil(at_a_time);
    let blocks = rows * cache::blocks(job.sequence) + cache::blocks(job.prompt);
    blocks.next_multiple_of(cache::SLAB) * s.attention.block + (rows + 1) * s.attention.state
}
