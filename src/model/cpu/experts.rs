//! A layer's mixture of experts, forward and backward: `y = sum over the chosen of w_e expert_e(x) + gate shared(x)`.
//!
//! A weight stands behind an expert's last product, so its gradient is that product's: `d_w = d_y down(a)`, which is
//! `(downᵀ d_y) a`; nothing of an expert's output is kept for it.

use super::latent::add;
use super::weights::Vector;
use super::workspace::{Activations, ExpertScratch, LayerGradients, ProductInputs};
use crate::model::layout::{ExpertsMlp, SharedMlp};
use crate::model::routing::Sampled;
use crate::ops::experts::{Router, add_weighed, balance_backward, sigmoid, weigh_back};
use crate::ops::linear::{Epilogue, Linear, grouped};
use crate::ops::memory::sized;
use crate::ops::swiglu;
use crate::ops::team::Team;

/// The experts of a layer, ready for products.
type Mixture<'a> = ExpertsMlp<Linear<'a>, Vector<'a>>;

fn gate_ups<'m, 'w>(mlp: &'m Mixture<'w>) -> Vec<&'m Linear<'w>> {
    mlp.experts.iter().map(|expert| &expert.gate_up).collect()
}

fn downs<'m, 'w>(mlp: &'m Mixture<'w>) -> Vec<&'m Linear<'w>> {
    mlp.experts.iter().map(|expert| &expert.down).collect()
}

/// Width of an expert (`F`).
fn width(mlp: &Mixture) -> usize {
    mlp.experts[0].down.inputs()
}

/// From normed rows `(T, K)` to the activations of their experts.
pub(super) fn forward(
    team: &Team,
    router: &Router,
    mlp: &Mixture,
    sampled: Option<Sampled>,
    a: &mut Activations,
    inputs: &mut ProductInputs,
) {
    let (k, f, kept) = (mlp.router.inputs(), width(mlp), &mut a.experts);
    let (normed, scratch) = (&inputs.normed, &mut inputs.experts);
    let t = normed.len() / k;
    let products = sized(&mut kept.routing.scores, t * router.experts);
    mlp.router.forward(team, normed, products, Epilogue::None);
    router.forward(team, mlp.bias.as_ref().map(|bias| bias.values()), &mut kept.routing);
    if let Some(sampled) = sampled {
        sampled.meet(router, &mut kept.routing);
    }
    kept.dispatch.set(&kept.routing.chosen, router.active, router.experts);

    let (rows, groups) = (kept.dispatch.len(), kept.dispatch.groups());
    let gathered = sized(&mut scratch.gathered, rows * k);
    kept.dispatch.gather(team, normed, k, gathered);
    let gate_up = sized(&mut a.gate_up, rows * 2 * f);
    grouped::forward(team, &gate_ups(mlp), groups, gathered, gate_up);
    swiglu::forward(team, gate_up, f, sized(&mut inputs.activated, rows * f));

    let Some(SharedMlp { mlp, gate }) = &mlp.shared else { return };
    let f = mlp.down.inputs();
    let gate_up = sized(&mut kept.shared_gate_up, t * 2 * f);
    mlp.gate_up.forward(team, normed, gate_up, Epilogue::None);
    swiglu::forward(team, gate_up, f, sized(&mut scratch.shared_activated, t * f));
    if let Some(gate) = gate {
        let gates = sized(&mut kept.shared_gate, t);
        gate.forward(team, normed, gates, Epilogue::None);
        gates.iter_mut().for_each(|z| *z = sigmoid(*z));
    }
}

/// From there to the layer's output `(T, K)`.
pub(super) fn output(team: &Team, mlp: &Mixture, a: &Activations, inputs: &mut ProductInputs, next: &mut [f32]) {
    let (k, kept, scratch) = (mlp.router.inputs(), &a.experts, &mut inputs.experts);
    let outputs = sized(&mut scratch.outputs, kept.dispatch.len() * k);
    grouped::forward(team, &downs(mlp), kept.dispatch.groups(), &inputs.activated, outputs);
    match &mlp.shared {
        None => next.copy_from_slice(&a.middle),
        Some(SharedMlp { mlp, gate: None }) => {
            mlp.down.forward(team, &scratch.shared_activated, next, Epilogue::Residual(&a.middle));
        }
        Some(SharedMlp { mlp, gate: Some(_) }) => {
            let shared = sized(&mut scratch.shared_output, next.len());
            mlp.down.forward(team, &scratch.shared_activated, shared, Epilogue::None);
            next.copy_from_slice(&a.middle);
            add_weighed(team, shared, &kept.shared_gate, next);
        }
    }
    kept.dispatch.add_up(team, outputs, Some(&kept.routing.weights), k, next);
}

/// From the gradient of the output `dx (T, K)` to that of the normed rows, which `inputs` holds, left in `d.normed`.
pub(super) fn backward(
    team: &Team,
    router: &Router,
    mlp: &Mixture,
    (a, inputs): (&Activations, &mut ProductInputs),
    d: &mut LayerGradients,
    dx: &[f32],
    g: &mut [f32],
) {
    let (k, f, kept) = (mlp.router.inputs(), width(mlp), &a.experts);
    let (rows, groups, t) = (kept.dispatch.len(), kept.dispatch.groups(), dx.len() / k);
    let ProductInputs { normed, activated, experts: scratch, .. } = inputs;
    let (up, down) = (gate_ups(mlp), downs(mlp));
    let d_outputs = sized(&mut scratch.outputs, rows * k);
    kept.dispatch.gather(team, dx, k, d_outputs);
    let (d_activated, activated) = (sized(&mut d.activated, rows * f), sized(activated, rows * f));
    grouped::backward_input(team, &down, groups, d_outputs, d_activated);
    let d_gate_up = sized(&mut d.gate_up, rows * 2 * f);
    swiglu::backward(team, &a.gate_up, f, d_activated, d_gate_up, activated);
    kept.dispatch.by_place(&kept.routing.weights, &mut scratch.weights);
    let d_weights = sized(&mut scratch.d_weights, rows);
    weigh_back(team, &scratch.weights, d_activated, activated, d_gate_up, d_weights);
    grouped::backward_weight(team, &down, groups, activated, d_outputs, g);

    let gathered = sized(&mut scratch.gathered, rows * k);
    kept.dispatch.gather(team, normed, k, gathered);
    grouped::backward_weight(team, &up, groups, gathered, d_gate_up, g);
    grouped::backward_input(team, &up, groups, d_gate_up, sized(&mut scratch.outputs, rows * k));

    kept.dispatch.by_choice(&scratch.d_weights, &mut scratch.d_choices);
    let d_products = sized(&mut scratch.d_products, t * router.experts);
    router.backward(team, &kept.routing, &scratch.d_choices, d_products);
    if !scratch.balance_slopes.is_empty() {
        balance_backward(team, &kept.routing, &scratch.balance_slopes, &scratch.times, d_products);
    }
    mlp.router.backward_weight(team, normed, d_products, g);
    mlp.router.backward_input(team, d_products, sized(&mut d.normed, t * k));
    kept.dispatch.add_up(team, &scratch.outputs, None, k, &mut d.normed);
    if let Some(shared) = &mlp.shared {
        shared_backward(team, shared, (a, inputs), d, dx, g);
    }
}

/// The same of the expert that all rows go through, added to `d.normed`.
fn shared_backward(
    team: &Team,
    SharedMlp { mlp, gate }: &SharedMlp<Linear>,
    (a, inputs): (&Activations, &mut ProductInputs),
    d: &mut LayerGradients,
    dx: &[f32],
    g: &mut [f32],
) {
    let (f, t) = (mlp.down.inputs(), dx.len() / mlp.gate_up.inputs());
    let (kept, ProductInputs { normed, activated, experts: scratch, .. }) = (&a.experts, inputs);
    let (d_activated, activated) = (sized(&mut d.activated, t * f), sized(activated, t * f));
    mlp.down.backward_input(team, dx, d_activated);
    let d_gate_up = sized(&mut d.gate_up, t * 2 * f);
    swiglu::backward(team, &kept.shared_gate_up, f, d_activated, d_gate_up, activated);
    let ExpertScratch { shared_output: part, d_weights, .. } = scratch;
    let part = sized(part, dx.len());
    if let Some(gate) = gate {
        let (gates, d_gates) = (&kept.shared_gate, sized(d_weights, t));
        weigh_back(team, gates, d_activated, activated, d_gate_up, d_gates);
        d_gates.iter_mut().zip(gates).for_each(|(d, gate)| *d *= gate * (1.0 - gate));
        gate.backward_weight(team, normed, d_gates, g);
        gate.backward_input(team, d_gates, part);
        add(team, part, &mut d.normed);
    }
    mlp.down.backward_weight(team, activated, dx, g);
    mlp.gate_up.backward_weight(team, normed, d_gate_up, g);
    mlp.gate_up.backward_input(team, d_gate_up, part);
    add(team, part, &mut d.normed);
}
