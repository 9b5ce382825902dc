//! The feed-forward part of a layer on a device, forward and backward: dense here, a mixture in [`super::experts`].

use anyhow::Result;
use half::bf16;

use super::decoder::{Backward, Run};
use super::weights::LayerWeights;
use super::workspace::Activations;
use crate::model::layout::{DenseMlp, Mlp};
use crate::ops::device::View;
use crate::ops::swiglu::device as swiglu;

impl Run<'_> {
    /// From normed rows, which the activations hold, to all else that the backward of the part needs.
    pub(super) fn mlp_forward(&self, index: usize, layer: &LayerWeights, a: &Activations) -> Result<()> {
        let (width, f) = (self.model.decoder.hidden, self.model.decoder.intermediate);
        match &layer.mlp {
            Mlp::Dense(DenseMlp { gate_up, .. }) => {
                let outputs = self.rows(&a.gate_up, 2 * f);
                gate_up.forward(self.rows(&a.middle_normed, width), outputs, false, self.ws.lora_hidden.all())?;
                swiglu::forward(outputs, f, self.rows(&a.activated, f))
            }
            Mlp::Experts(mlp) => self.experts_forward(index, mlp, a),
        }
    }

    /// From there, added to `next`.
    pub(super) fn mlp_output(&self, layer: &LayerWeights, a: &Activations, next: View<bf16>) -> Result<()> {
        match &layer.mlp {
            Mlp::Dense(DenseMlp { down, .. }) => {
                let activated = self.rows(&a.activated, self.model.decoder.intermediate);
                down.forward(activated, next, true, self.ws.lora_hidden.all())
            }
            Mlp::Experts(mlp) => self.experts_output(mlp, a, next),
        }
    }
}

impl Backward<'_> {
    /// From `dx`, the gradient of the layer's output, to that of the normed rows.
    pub(super) fn mlp_backward(&self, index: usize, layer: &LayerWeights, a: &Activations) -> Result<()> {
        let (run, ws) = (&self.run, self.ws);
        let (width, f) = (run.model.decoder.hidden, run.model.decoder.intermediate);
        let (dx, d_normed) = (run.rows(&ws.dx, width), run.rows(&ws.d_normed, width));
        match &layer.mlp {
            Mlp::Dense(DenseMlp { gate_up, down }) => {
                let d_activated = run.rows(&ws.d_activated, f);
                down.backward(run.rows(&a.activated, f), dx, d_activated, false, self.lora_hidden())?;
                let d_gate_up = run.rows(&a.gate_up, 2 * f);
                swiglu::backward(d_gate_up, f, d_activated)?;
                gate_up.backward(run.rows(&a.middle_normed, width), d_gate_up, d_normed, false, self.lora_hidden())
            }
            Mlp::Experts(mlp) => self.experts_backward(index, mlp, a),
        }
    }
}
