//! The memory of a forward and a backward on one thread: every buffer that grows with the tokens of a micro-batch.
//! A workspace is used again for the next micro-batch, so a run's memory is that of its largest one.

use std::mem::swap;

use crate::ops::attention::Scratch;

/// What a layer keeps for its backward. `(T, ..)` each.
#[derive(Debug, Default)]
pub(super) struct LayerActivations {
    pub(super) x: Vec<f32>,
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

/// All buffers of one thread.
#[derive(Debug, Default)]
pub struct Workspace {
    /// One a layer. With `recompute`, only their inputs are in use.
    pub(super) layers: Vec<LayerActivations>,
    /// The layer at hand; see [`Workspace::swap_active`].
    pub(super) active: LayerActivations,
    /// Output of the last layer.
    pub(super) last: Vec<f32>,
    /// Hidden states after the last norm `(T, K)`.
    pub hidden: Vec<f32>,
    /// Gradient of the residual stream.
    pub(super) dx: Vec<f32>,
    pub(super) inputs: ProductInputs,
    pub(super) gradients: LayerGradients,
    pub(super) scratch: Scratch,
}

impl Workspace {
    /// The residual stream before layer `index`: its input, and after the last layer the output of all.
    pub(super) fn stream(&mut self, index: usize) -> &mut Vec<f32> {
        self.layers.get_mut(index).map_or(&mut self.last, |layer| &mut layer.x)
    }

    /// Rotated queries, keys and values `(T, row)` of each layer, after a forward that kept them.
    pub fn qkv(&self) -> impl Iterator<Item = &[f32]> {
        self.layers.iter().map(|layer| layer.qkv.as_slice())
    }

    /// Makes a layer the active one, or puts it back: the same act. With `recompute` only its input goes to and fro, and
    /// all other activations exist once.
    pub(super) fn swap_active(&mut self, index: usize, recompute: bool) {
        if recompute {
            swap(&mut self.active.x, &mut self.layers[index].x);
        } else {
            swap(&mut self.active, &mut self.layers[index]);
        }
    }
}

/// Gives a buffer the length `n`. What it holds is of no meaning: the next operation writes all of it.
pub(super) fn sized(buffer: &mut Vec<f32>, n: usize) -> &mut [f32] {
    buffer.resize(n, 0.0);
    buffer
}
