//! The memory of a forward and a backward: every buffer that grows with the tokens of a micro-batch.
//! A workspace is used again for the next micro-batch, so a run's memory is that of its largest one.

use crate::ops::linear_logprob::Logits;
use crate::ops::memory;

/// What a forward keeps of its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All that their backward reads.
    Activations,
    /// Their inputs; the backward computes the rest again (gradient checkpointing).
    Inputs,
    /// Nothing, because no backward follows.
    Nothing,
}

/// What a layer keeps for its backward beside its input. `(T, ..)` each.
#[derive(Debug, Default)]
pub(super) struct Activations {
    /// Before the norm of heads; empty where there is none.
    pub(super) raw_qkv: Vec<f32>,
    /// Queries, keys and values, rotated.
    pub(super) qkv: Vec<f32>,
    pub(super) attended: Vec<f32>,
    pub(super) lse: Vec<f32>,
    pub(super) middle: Vec<f32>,
    pub(super) gate_up: Vec<f32>,
}

/// Inputs of a layer's products that cost less to compute again in the backward, from what is kept, than to fetch from
/// memory.
#[derive(Debug, Default)]
pub(super) struct ProductInputs {
    pub(super) normed: Vec<f32>,
    pub(super) activated: Vec<f32>,
}

/// Gradients of what lies between the operations of a layer.
#[derive(Debug, Default)]
pub(super) struct LayerGradients {
    pub(super) activated: Vec<f32>,
    pub(super) gate_up: Vec<f32>,
    pub(super) normed: Vec<f32>,
    pub(super) attended: Vec<f32>,
    pub(super) qkv: Vec<f32>,
    pub(super) raw_qkv: Vec<f32>,
}

/// All buffers of one micro-batch at a time.
#[derive(Debug, Default)]
pub struct Workspace {
    /// The residual stream before each layer and after the last; two that take turns where nothing is kept.
    pub(super) streams: Vec<Vec<f32>>,
    /// One for each layer, or one that all share.
    pub(super) layers: Vec<Activations>,
    /// Hidden states after the last norm `(T, K)`.
    pub hidden: Vec<f32>,
    /// Gradient of the residual stream.
    pub(super) dx: Vec<f32>,
    pub(super) inputs: ProductInputs,
    pub(super) gradients: LayerGradients,
    pub(super) logits: Logits,
    /// How many of `streams` and of `layers` the forward at hand uses.
    used: (usize, usize),
}

impl Workspace {
    /// Has as many buffers as a forward through `layers` layers keeps. What an earlier one kept stays for a later one.
    pub(super) fn shape(&mut self, layers: usize, keep: Keep) {
        let streams = if keep == Keep::Nothing { 2 } else { layers + 1 };
        self.used = (streams, if keep == Keep::Activations { layers.max(1) } else { 1 });
        self.streams.resize_with(streams.max(self.streams.len()), Default::default);
        self.layers.resize_with(self.used.1.max(self.layers.len()), Default::default);
    }

    /// Gives all of it back to the system.
    pub(super) fn give_back(self) {
        let Self { streams, layers, hidden, dx, inputs, gradients, logits, used: _ } = self;
        let of_layers = layers.into_iter().flat_map(|a| [a.raw_qkv, a.qkv, a.attended, a.lse, a.middle, a.gate_up]);
        let LayerGradients { activated, gate_up, normed, attended, qkv, raw_qkv } = gradients;
        let others = [hidden, dx, inputs.normed, inputs.activated, activated, gate_up, normed, attended, qkv, raw_qkv];
        streams.into_iter().chain(of_layers).chain(others).for_each(memory::give_back);
        logits.give_back();
    }

    /// Which of `streams` is before layer `index`, or after the last.
    pub(super) fn stream(&self, index: usize) -> usize {
        index % self.used.0
    }

    /// Which of `layers` has what the backward of layer `index` needs.
    pub(super) fn layer(&self, index: usize) -> usize {
        index % self.used.1
    }
}
