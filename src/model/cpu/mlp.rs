//! The feed-forward part of a layer, forward and backward: dense here, a mixture in [`super::experts`].

use super::decoder::Input;
use super::experts;
use super::weights::PackedLayer;
use super::workspace::{Keep, Workspace};
use crate::model::decoder::Decoder;
use crate::model::layout::{DenseMlp, Mlp};
use crate::model::routing::Sampled;
use crate::ops::experts::Router;
use crate::ops::linear::Epilogue;
use crate::ops::memory::sized;
use crate::ops::rms_norm::{self, Kept, Vectors};
use crate::ops::swiglu;
use crate::ops::team::Team;

impl Decoder {
    /// The router of layers that have experts.
    fn router(&self) -> &Router {
        self.router.as_ref().expect("a model with experts has a router")
    }

    /// From the layer's middle `(T, K)` to all else that the backward of its feed-forward part needs.
    pub(super) fn mlp_forward(&self, team: &Team, index: usize, layer: &PackedLayer, input: Input, ws: &mut Workspace) {
        let kept = ws.layer(index);
        let (a, inputs) = (&mut ws.layers[kept], &mut ws.inputs);
        let (normed, norm) = (sized(&mut inputs.normed, a.middle.len()), layer.mlp_norm.values());
        rms_norm::forward(team, Vectors::rows(self.hidden), &a.middle, norm, self.eps, normed);
        match &layer.mlp {
            Mlp::Dense(DenseMlp { gate_up, .. }) => {
                let (t, f) = (normed.len() / self.hidden, self.intermediate);
                gate_up.forward(team, normed, sized(&mut a.gate_up, t * 2 * f), Epilogue::None);
                swiglu::forward(team, &a.gate_up, f, sized(&mut inputs.activated, t * f));
            }
            Mlp::Experts(mlp) => {
                let place = self.routed_place(index);
                let recorded = input.recorded.map(|(experts, replay)| (experts.layer(place).collect(), replay));
                let sampled = recorded.map(|(chosen, replay)| Sampled { chosen, replay, differ: &mut ws.differ });
                experts::forward(team, self.router(), mlp, sampled, a, inputs);
                if let Some(routed) = &mut ws.routed {
                    routed.set_layer(place, &a.experts.routing.chosen);
                }
            }
        }
    }

    /// From there to the layer's output. What routers chose is counted where a backward follows.
    pub(super) fn mlp_output(&self, team: &Team, index: usize, layer: &PackedLayer, keep: Keep, ws: &mut Workspace) {
        let (next, kept) = (ws.stream(index + 1), ws.layer(index));
        let (a, inputs) = (&ws.layers[kept], &mut ws.inputs);
        let next = sized(&mut ws.streams[next], a.middle.len());
        match &layer.mlp {
            Mlp::Dense(DenseMlp { down, .. }) => {
                down.forward(team, &inputs.activated, next, Epilogue::Residual(&a.middle));
            }
            Mlp::Experts(mlp) => {
                experts::output(team, mlp, a, inputs, next);
                if let Some(balance) = &mut ws.balance {
                    balance.add_rows(self.router(), &a.experts.routing, &inputs.experts.times);
                }
                if keep != Keep::Nothing {
                    let layers = &mut ws.choices.layers;
                    layers.resize_with(layers.len().max(index + 1), Default::default);
                    layers[index].add(&self.router().load(&a.experts.routing));
                }
            }
        }
    }

    /// Turns `dx`, the gradient of the layer's output, into that of its middle.
    pub(super) fn mlp_backward(
        &self,
        team: &Team,
        index: usize,
        layer: &PackedLayer,
        g: &mut [f32],
        ws: &mut Workspace,
    ) {
        let kept = ws.layer(index);
        let (a, inputs, d, dx) = (&ws.layers[kept], &mut ws.inputs, &mut ws.gradients, &mut ws.dx);
        let (norm, vectors) = (layer.mlp_norm.values(), Vectors::rows(self.hidden));
        match &layer.mlp {
            Mlp::Dense(DenseMlp { gate_up, down }) => {
                let (d_activated, activated) = (sized(&mut d.activated, a.gate_up.len() / 2), &mut inputs.activated);
                down.backward_input(team, dx, d_activated);
                let (d_gate_up, activated) =
                    (sized(&mut d.gate_up, a.gate_up.len()), sized(activated, a.gate_up.len() / 2));
                swiglu::backward(team, &a.gate_up, self.intermediate, d_activated, d_gate_up, activated);
                down.backward_weight(team, activated, dx, g);
                let normed = sized(&mut inputs.normed, a.middle.len());
                rms_norm::forward(team, vectors, &a.middle, norm, self.eps, normed);
                gate_up.backward_weight(team, normed, d_gate_up, g);
                gate_up.backward_input(team, d_gate_up, sized(&mut d.normed, a.middle.len()));
            }
            Mlp::Experts(mlp) => {
                let normed = sized(&mut inputs.normed, a.middle.len());
                rms_norm::forward(team, vectors, &a.middle, norm, self.eps, normed);
                experts::backward(team, self.router(), mlp, (a, inputs), d, dx, g);
            }
        }
        let kept = Kept { x: &a.middle, w: norm, eps: self.eps };
        rms_norm::backward(team, vectors, kept, &d.normed, dx, layer.mlp_norm.gradient(g));
    }
}
