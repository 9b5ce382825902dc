//! A gated delta net of a layer on a device, forward and backward: `Wo (norm(states(Win x)) silu(gates))`. A layer keeps
//! what was projected and its outputs; all else is computed again.

use anyhow::Result;
use half::bf16;

use super::decoder::{Backward, Run};
use super::states::Memory;
use super::workspace::Activations;
use crate::model::layout::DeltaAttention;
use crate::ops::delta::{Delta, device as delta};
use crate::ops::device::View;
use crate::ops::device::columns::Rows;
use crate::ops::gate::{Gate, device as gate};
use crate::ops::linear::device::{Linear, Weight};
use crate::ops::rms_norm::device as rms_norm;

/// The parts of a layer's attention, as products read them.
type Parts<'a> = DeltaAttention<Linear<'a>, Weight<'a>>;

/// The rows of a norm of each head's outputs.
fn heads(s: Delta) -> Rows {
    Rows { k: s.value, heads: s.value_heads, stride: s.outputs() }
}

impl<'a> Run<'a> {
    fn delta(&self) -> Delta {
        self.model.decoder.delta.expect("a model with delta nets has their sizes")
    }

    fn delta_net(&self, index: usize, parts: &Parts<'a>) -> delta::Net<'a> {
        let weights = delta::Weights { taps: parts.taps, decay: parts.decay, step: parts.step };
        let Memory { sequences, states } = self.memory.expect("delta nets are told of their sequences");
        let states = states.map(|states| (states, self.model.decoder.places[index]));
        delta::Net { s: self.delta(), weights, sequences, states }
    }

    fn delta_inputs(&self) -> delta::Inputs<'a> {
        let (s, inputs) = (self.delta(), &self.ws.delta);
        delta::Inputs { rows: self.rows(&inputs.rows, s.channels()), gates: self.rows(&inputs.gates, s.gates()) }
    }

    /// From normed rows to the middle of the layer, which holds its input.
    pub(super) fn delta_forward(&self, index: usize, parts: &Parts<'a>, a: &Activations) -> Result<()> {
        let (width, s, lora_hidden) = (self.model.decoder.hidden, self.delta(), self.ws.lora_hidden.all());
        let (projected, o) = (self.rows(&a.projected, s.row()), self.rows(&a.attended, s.outputs()));
        parts.input.forward(self.rows(&a.normed, width), projected, false, lora_hidden)?;
        self.delta_net(index, parts).forward(projected, self.delta_inputs(), o)?;
        let gated = self.rows(&self.ws.gated, s.outputs());
        self.normed_outputs(parts, a, gated)?;
        gate::forward(Gate::Silu, s.output_gates(), projected, gated, gated)?;
        parts.output.forward(gated, self.rows(&a.middle, width), true, lora_hidden)
    }

    /// The outputs of heads, each normed, their gates not yet multiplied.
    fn normed_outputs(&self, parts: &Parts, a: &Activations, to: View<bf16>) -> Result<()> {
        let s = self.delta();
        let (o, factors) = (self.rows(&a.attended, s.outputs()), self.rows(&self.ws.delta.factors, s.value_heads));
        rms_norm::forward(heads(s), o, parts.norm, to, factors, self.model.decoder.eps)
    }
}

impl Backward<'_> {
    /// From `dx`, the gradient of the layer's middle, to that of the normed rows.
    pub(super) fn delta_backward(&self, index: usize, parts: &Parts, a: &Activations) -> Result<()> {
        let (run, ws, s) = (&self.run, self.ws, self.run.delta());
        let (width, gates) = (run.model.decoder.hidden, s.output_gates());
        let outputs = |buffer| run.rows::<bf16>(buffer, s.outputs());
        let (o, gated, normed) = (outputs(&a.attended), outputs(&run.ws.gated), outputs(&ws.delta_net.normed));
        let (projected, d_projected) = (run.rows(&a.projected, s.row()), run.rows(&ws.d_projected, s.row()));
        run.normed_outputs(parts, a, normed)?;
        gate::forward(Gate::Silu, gates, projected, normed, gated)?;
        let (dx, d_o) = (run.rows(&ws.dx, width), outputs(&ws.d_attended));
        parts.output.backward(gated, dx, d_o, false, self.lora_hidden())?;
        gate::backward(Gate::Silu, gates, projected, normed, d_o, d_projected)?;
        let factors = run.rows(&run.ws.delta.factors, s.value_heads);
        let kept = rms_norm::Kept { x: o, w: parts.norm.into(), factors };
        rms_norm::backward(heads(s), kept, d_o, d_o, false, parts.norm.gradient, ws.partial.all())?;

        let scratch = delta::Scratch {
            errors: run.rows(&ws.delta_net.errors, s.outputs()),
            gradients: run.rows(&ws.delta_net.gradients, delta::gradients(s)),
            gates: run.rows(&ws.delta_net.gates, s.gates()),
            partial: ws.partial.all(),
        };
        run.delta_net(index, parts).backward(projected, run.delta_inputs(), scratch, d_o, d_projected)?;
        let (normed, d_normed) = (run.rows(&a.normed, width), run.rows(&ws.d_normed, width));
        parts.input.backward(normed, d_projected, d_normed, false, self.lora_hidden())
    }
}
