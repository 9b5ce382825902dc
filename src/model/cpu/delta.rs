//! A gated delta net of a layer, forward and backward: `Wo (norm(states(Win x)) silu(gates))`.

use super::decoder::{Buffers, Context, Place, Sequences};
use super::weights::Vector;
use super::workspace::{Activations, LayerGradients, ProductInputs};
use crate::model::decoder::Decoder;
use crate::model::layout::DeltaAttention;
use crate::ops::delta::{self, Delta, Gradients, Run, Weights};
use crate::ops::gate::{self, Gate};
use crate::ops::linear::{Epilogue, Linear};
use crate::ops::memory::sized;
use crate::ops::rms_norm::{self, Kept, Vectors};
use crate::ops::team::Team;

/// The parts of a layer's attention, ready for products.
type Parts<'a> = DeltaAttention<Linear<'a>, Vector<'a>>;

/// What of them enters the states.
fn weights<'p>(parts: &'p Parts) -> Weights<'p> {
    Weights { taps: parts.taps.values(), decay: parts.decay.values(), step: parts.step.values() }
}

/// Where in a row of outputs those of each head lie.
fn heads(s: Delta) -> Vectors {
    Vectors { row: s.outputs(), first: 0, count: s.value_heads }
}

impl Context<'_> {
    /// `projected (T, row)` of layer `layer` through the states of its sequences -> `o (T, H D)`.
    fn remember(
        &mut self,
        team: &Team,
        (decoder, layer): (&Decoder, usize),
        weights: Weights,
        projected: &[f32],
        inputs: &mut delta::Inputs,
        o: &mut [f32],
    ) {
        let (s, place) = (decoder.delta(), decoder.places[layer]);
        let mut runs = Vec::new();
        match self {
            Self::Segments(segments) => return delta::forward(team, s, weights, projected, segments, inputs, o),
            Self::Prompt { cache, sequence } => {
                let states = cache.states_mut(sequence.state, place).into_iter();
                runs.extend(states.map(|state| Run { rows: 0..sequence.cached, state }));
            }
            Self::Cached { cache, sequences } => {
                // Tokens of one sequence follow each other.
                let same = sequences.chunk_by(|one, next| one.state == next.state);
                let states = cache.states_mut(same.clone().filter_map(|same| same[0].state), place);
                let mut first = 0;
                for (same, state) in same.zip(states) {
                    runs.push(Run { rows: first..first + same.len(), state });
                    first += same.len();
                }
            }
        }
        delta::advance(team, s, weights, projected, runs, inputs, o);
    }
}

impl Decoder {
    fn delta(&self) -> Delta {
        self.delta.expect("a model with delta nets has their sizes")
    }

    /// From normed rows, which the buffers hold, to the middle of the layer.
    pub(super) fn delta_forward(
        &self,
        team: &Team,
        parts: &Parts,
        Place { index, input, context }: Place,
        (x, a, inputs): Buffers,
    ) {
        let (s, t) = (self.delta(), input.tokens.len());
        let (projected, o) = (sized(&mut a.projected, t * s.row()), sized(&mut a.attended, t * s.outputs()));
        parts.input.forward(team, &inputs.normed, projected, Epilogue::None);
        context.remember(team, (self, index), weights(parts), projected, &mut inputs.delta, o);
        let outputs = self.normed_outputs(team, parts, a, &mut inputs.gated);
        gate::forward(team, Gate::Silu, s.output_gates(), &a.projected, outputs);
        parts.output.forward(team, outputs, sized(&mut a.middle, x.len()), Epilogue::Residual(x));
    }

    /// The outputs of heads, each normed, their gates not yet multiplied.
    fn normed_outputs<'o>(
        &self,
        team: &Team,
        parts: &Parts,
        a: &Activations,
        outputs: &'o mut Vec<f32>,
    ) -> &'o mut [f32] {
        let outputs = sized(outputs, a.attended.len());
        rms_norm::forward(team, heads(self.delta()), &a.attended, parts.norm.values(), self.eps, outputs);
        outputs
    }

    /// From the gradient of the attention's output to that of the normed rows, which `inputs` holds, left in
    /// `d.normed`.
    pub(super) fn delta_backward(
        &self,
        team: &Team,
        parts: &Parts,
        Sequences { segments, .. }: Sequences,
        (a, inputs): (&Activations, &mut ProductInputs),
        (d, dx): (&mut LayerGradients, &[f32]),
        g: &mut [f32],
    ) {
        let (s, gates) = (self.delta(), self.delta().output_gates());
        let d_outputs = sized(&mut d.attended, a.attended.len());
        parts.output.backward_input(team, dx, d_outputs);
        let outputs = self.normed_outputs(team, parts, a, &mut inputs.gated);
        let (d_projected, d_o) = (sized(&mut d.projected, a.projected.len()), sized(&mut d.qkv, a.attended.len()));
        gate::backward(team, Gate::Silu, gates, &a.projected, outputs, d_outputs, d_projected);
        gate::forward(team, Gate::Silu, gates, &a.projected, outputs);
        parts.output.backward_weight(team, outputs, dx, g);
        d_o.fill(0.0);
        let kept = Kept { x: &a.attended, w: parts.norm.values(), eps: self.eps };
        rms_norm::backward(team, heads(s), kept, d_outputs, d_o, parts.norm.gradient(g));

        let [taps, decay, step] = Vector::gradients([&parts.taps, &parts.decay, &parts.step], g);
        let to = (&mut *d_projected, Gradients { taps, decay, step });
        let memory = (&mut inputs.delta, &mut d.delta);
        delta::backward(team, s, weights(parts), (&a.projected, segments), memory, d_o, to);
        parts.input.backward_weight(team, &inputs.normed, d_projected, g);
        parts.input.backward_input(team, d_projected, sized(&mut d.normed, inputs.normed.len()));
    }
}
