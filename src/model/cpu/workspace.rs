//! The memory of a forward and a backward: every buffer that grows with the tokens of a micro-batch.
//! A workspace is used again for the next micro-batch, so a run's memory is that of its largest one.

use crate::batch::{Choices, RoutedExperts};
use crate::ops::delta;
use crate::ops::experts::{Dispatch, LoadBalance, Routing};
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
    /// What the first product made, where the attention has that in another form: before the norm of heads, with gates
    /// of outputs, or for a delta net.
    pub(super) projected: Vec<f32>,
    /// Queries, keys and values, rotated.
    pub(super) qkv: Vec<f32>,
    pub(super) attended: Vec<f32>,
    pub(super) lse: Vec<f32>,
    pub(super) middle: Vec<f32>,
    /// Of every token, or of every choice of an expert, in the order of the experts.
    pub(super) gate_up: Vec<f32>,
    pub(super) experts: ExpertActivations,
    pub(super) latent: LatentActivations,
}

/// What latent attention keeps beside.
#[derive(Debug, Default)]
pub(super) struct LatentActivations {
    /// Queries of heads, scaled, not yet absorbed.
    pub(super) queries: Vec<f32>,
    /// What they were made of, before its norm; empty where it was the stream.
    pub(super) compressed_queries: Vec<f32>,
    /// Latents before their norm, with what is rotated beside them.
    pub(super) compressed: Vec<f32>,
}

/// Inputs of its products that are computed again.
#[derive(Debug, Default)]
pub(super) struct LatentInputs {
    /// Compressed queries, normed.
    pub(super) queries: Vec<f32>,
    /// Latents, normed, with what is rotated beside them.
    pub(super) latents: Vec<f32>,
    /// Outputs of heads.
    pub(super) values: Vec<f32>,
}

/// Gradients of what lies between its operations.
#[derive(Debug, Default)]
pub(super) struct LatentGradients {
    pub(super) values: Vec<f32>,
    pub(super) queries: Vec<f32>,
    pub(super) compressed_queries: Vec<f32>,
    pub(super) latents: Vec<f32>,
    pub(super) compressed: Vec<f32>,
    /// What the queries add to the gradient of the normed rows.
    pub(super) part: Vec<f32>,
}

/// What a layer of experts keeps beside.
#[derive(Debug, Default)]
pub(super) struct ExpertActivations {
    pub(super) routing: Routing,
    pub(super) dispatch: Dispatch,
    /// Of the expert that all tokens go through.
    pub(super) shared_gate_up: Vec<f32>,
    /// What its output is multiplied by `(T)`, where it has a gate.
    pub(super) shared_gate: Vec<f32>,
}

/// Inputs of a layer's products that cost less to compute again in the backward, from what is kept, than to fetch from
/// memory.
#[derive(Debug, Default)]
pub(super) struct ProductInputs {
    pub(super) normed: Vec<f32>,
    pub(super) activated: Vec<f32>,
    /// Queries, keys and values before the norm of heads, where gates stand between what was projected.
    pub(super) unnormed: Vec<f32>,
    /// Outputs of heads times their gates.
    pub(super) gated: Vec<f32>,
    pub(super) delta: delta::Inputs,
    pub(super) experts: ExpertScratch,
    pub(super) latent: LatentInputs,
}

/// What one layer of experts at a time works in; `R = T A` rows are those of choices, in the order of the experts.
#[derive(Debug, Default)]
pub(super) struct ExpertScratch {
    /// Inputs `(R, K)`.
    pub(super) gathered: Vec<f32>,
    /// Outputs `(R, K)`; in a backward, their gradients and then those of the inputs.
    pub(super) outputs: Vec<f32>,
    /// Of the shared expert `(T, F)`, `(T, K)`; in a backward, the latter is what one part adds to the input's
    /// gradient.
    pub(super) shared_activated: Vec<f32>,
    pub(super) shared_output: Vec<f32>,
    /// Weights and their gradients by place `(R)`, the latter by choice `(T, A)`, and those of the router's products.
    pub(super) weights: Vec<f32>,
    pub(super) d_weights: Vec<f32>,
    pub(super) d_choices: Vec<f32>,
    pub(super) d_products: Vec<f32>,
    /// The slopes of the auxiliary loss by the shares of a row `(E)`, where there is one, and how often each row counts
    /// in it `(T)`.
    pub(super) balance_slopes: Vec<f32>,
    pub(super) times: Vec<u32>,
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
    pub(super) projected: Vec<f32>,
    pub(super) delta: delta::Scratch,
    pub(super) latent: LatentGradients,
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
    /// What the routers of the layers chose in forwards whose backward follows.
    pub(super) choices: Choices,
    /// What the auxiliary loss is made of, where it is summed up.
    pub(super) balance: Option<LoadBalance>,
    /// The experts of the tokens of the forward at hand, where they are recorded.
    pub(super) routed: Option<RoutedExperts>,
    /// Which of these tokens the routers themselves would send to other experts than they were sampled with `(T)`.
    pub(super) differ: Vec<bool>,
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

    /// Has places for what routers choose for so many tokens.
    pub(super) fn begin_routes(&mut self, tokens: usize, compared: bool) {
        self.routed.iter_mut().for_each(|routed| routed.resize(tokens));
        self.differ.clear();
        self.differ.resize(if compared { tokens } else { 0 }, false);
    }

    /// Gives all of it back to the system.
    pub(super) fn give_back(self) {
        let Self { streams, layers, hidden, dx, inputs, gradients, logits, .. } = self;
        let of_layers = layers.into_iter().flat_map(|a| {
            let ExpertActivations { routing, dispatch: _, shared_gate_up, shared_gate } = a.experts;
            let LatentActivations { queries, compressed_queries, compressed } = a.latent;
            let experts = [routing.scores, routing.weights, shared_gate_up, shared_gate];
            let latent = [queries, compressed_queries, compressed];
            [a.projected, a.qkv, a.attended, a.lse, a.middle, a.gate_up].into_iter().chain(experts).chain(latent)
        });
        let ExpertScratch { gathered, outputs, shared_activated, shared_output, .. } = inputs.experts;
        let LatentInputs { queries, latents, values } = inputs.latent;
        let of_experts = [gathered, outputs, shared_activated, shared_output, queries, latents, values];
        let LayerGradients { activated, gate_up, normed, attended, qkv, raw_qkv, projected, delta, latent } = gradients;
        let of_deltas = [inputs.delta.rows, inputs.delta.gates].into_iter().chain(delta.into_buffers());
        let LatentGradients { values, queries, compressed_queries, latents, compressed, part } = latent;
        let of_latents = [values, queries, compressed_queries, latents, compressed, part];
        let of_inputs = [inputs.normed, inputs.activated, inputs.unnormed, inputs.gated];
        let others = [hidden, dx, activated, gate_up, normed, attended, qkv, raw_qkv, projected];
        streams
            .into_iter()
            .chain(of_layers)
            .chain(of_experts)
            .chain(of_latents)
            .chain(of_deltas)
            .chain(of_inputs)
            .chain(others)
            .for_each(memory::give_back);
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
