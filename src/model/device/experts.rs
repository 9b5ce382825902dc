//! A layer's mixture of experts on a device, forward and backward: `y = sum over the chosen of expert_e(x, w_e) +
//! shared(x, gate)`.
//!
//! Routers choose on the host, by the code that a processor's model has: their products come down, and the rows of each
//! expert go up, with their weights. An expert weighs its rows before its last product, not behind it, which comes to
//! the same: what it gives is only added up then, and the gradient of a weight is found where the activations are.

use anyhow::Result;
use half::bf16;

use super::decoder::{Backward, Run};
use super::routers::{ExpertActivations, Routes};
use super::workspace::Activations;
use crate::model::layout::{DenseMlp, ExpertsMlp, SharedMlp};
use crate::model::routing::Sampled;
use crate::ops::device::View;
use crate::ops::embedding::device::take_rows;
use crate::ops::experts::device::add_up;
use crate::ops::experts::{Load, Router, balance_backward, sigmoid};
use crate::ops::linear::device::{Linear, Weight};
use crate::ops::swiglu::device as swiglu;
use crate::ops::team::Team;

/// The experts of a layer, as products read them.
type Mixture<'a> = ExpertsMlp<Linear<'a>, Weight<'a>>;

/// Scores below which a router chooses on one thread: to call others takes longer.
const ALONE: usize = 1 << 16;

impl Run<'_> {
    fn router(&self) -> &Router {
        self.model.decoder.router.as_ref().expect("a model with experts has a router")
    }

    /// From normed rows, which the activations hold, to the activations of their experts.
    pub(super) fn experts_forward(&self, index: usize, mlp: &Mixture, a: &Activations) -> Result<()> {
        let (k, f, active) = (self.model.decoder.hidden, mlp.experts[0].down.inputs(), self.router().active);
        let (normed, lora_hidden) = (self.rows(&a.middle_normed, k), self.ws.lora_hidden.all());
        let mut routes = a.experts.routes.borrow_mut();
        let products = self.rows(&self.ws.router_products, self.router().experts);
        mlp.router.forward(normed, products, false, lora_hidden)?;
        self.choose(index, products.read()?, &mut routes, &a.experts)?;

        let gathered = self.rows(&self.ws.of_experts, active * k);
        take_rows(self.rows(&a.experts.rows, active), normed, gathered, k)?;
        let gate_up = self.rows(&a.gate_up, active * 2 * f);
        for (DenseMlp { gate_up: up, .. }, rows) in groups(mlp, &routes) {
            up.forward(rows.of(gathered, k), rows.of(gate_up, 2 * f), false, lora_hidden)?;
        }
        let weights = self.rows(&a.experts.weights, active);
        swiglu::weighed_forward(gate_up, f, weights, self.rows(&a.activated, active * f))?;
        mlp.shared.as_ref().map_or(Ok(()), |shared| self.shared_forward(shared, normed, &a.experts))
    }

    /// From a router's products `(T, E)` to its choice, which goes up.
    fn choose(&self, index: usize, products: Vec<f32>, routes: &mut Routes, kept: &ExpertActivations) -> Result<()> {
        let (router, Routes { routing, dispatch }) = (self.router(), routes);
        let biases = &self.weights.choice_biases[index];
        routing.scores = products;
        self.with_team(routing.scores.len(), |team| router.forward(team, biases.as_deref(), routing));
        let (mut notes, place) = (self.routers.notes.borrow_mut(), self.model.decoder.routed_place(index));
        if let Some((experts, replay)) = self.routers.recorded {
            let sampled = Sampled { chosen: experts.layer(place).collect(), replay, differ: &mut notes.differ };
            sampled.meet(router, routing);
        }
        if let Some(routed) = &mut notes.routed {
            routed.set_layer(place, &routing.chosen);
        }
        dispatch.set(&routing.chosen, router.active, router.experts);
        let (rows, mut weights) = (dispatch.rows().collect::<Vec<u32>>(), Vec::new());
        dispatch.by_place(&routing.weights, &mut weights);
        self.rows(&kept.rows, router.active).write(&rows)?;
        self.rows(&kept.places, router.active).write(dispatch.places())?;
        self.rows(&kept.weights, router.active).write(&weights)
    }

    /// Calls `work` with as many threads as so many scores are worth.
    fn with_team(&self, scores: usize, work: impl FnOnce(&Team)) {
        Team::with(if scores < ALONE { 1 } else { self.model.threads }, work);
    }

    /// From normed rows to the activations of the expert of all.
    fn shared_forward(&self, shared: &SharedMlp<Linear>, normed: View<bf16>, kept: &ExpertActivations) -> Result<()> {
        let (SharedMlp { mlp, gate }, lora_hidden) = (shared, self.ws.lora_hidden.all());
        let f = mlp.down.inputs();
        let (gate_up, activated) = (self.rows(&kept.shared_gate_up, 2 * f), self.rows(&kept.shared_activated, f));
        mlp.gate_up.forward(normed, gate_up, false, lora_hidden)?;
        let Some(gate) = gate else { return swiglu::forward(gate_up, f, activated) };
        let gates = self.rows(&kept.shared_gates, 1);
        gate.forward(normed, gates, false, lora_hidden)?;
        gates.write(&gates.read()?.into_iter().map(sigmoid).collect::<Vec<f32>>())?;
        swiglu::weighed_forward(gate_up, f, gates, activated)
    }

    /// From there, added to `next (T, K)`.
    pub(super) fn experts_output(&self, mlp: &Mixture, a: &Activations, next: View<bf16>) -> Result<()> {
        let (k, f, active) = (self.model.decoder.hidden, mlp.experts[0].down.inputs(), self.router().active);
        let (routes, lora_hidden) = (a.experts.routes.borrow(), self.ws.lora_hidden.all());
        let (activated, outputs) = (self.rows(&a.activated, active * f), self.rows(&self.ws.of_experts, active * k));
        for (DenseMlp { down, .. }, rows) in groups(mlp, &routes) {
            down.forward(rows.of(activated, f), rows.of(outputs, k), false, lora_hidden)?;
        }
        if let Some(SharedMlp { mlp, .. }) = &mlp.shared {
            let activated = self.rows(&a.experts.shared_activated, mlp.down.inputs());
            mlp.down.forward(activated, next, true, lora_hidden)?;
        }
        add_up(outputs, self.rows(&a.experts.places, active), next, k)?;
        if let Some(balance) = &mut self.routers.notes.borrow_mut().balance {
            balance.add_rows(self.router(), &routes.routing, &vec![1; self.t]);
        }
        Ok(())
    }
}

impl Backward<'_> {
    /// From `dx`, the gradient of the layer's output, to that of the normed rows.
    pub(super) fn experts_backward(&self, index: usize, mlp: &Mixture, a: &Activations) -> Result<()> {
        let (run, ws, kept) = (&self.run, self.ws, &a.experts);
        let (k, f, active) = (run.model.decoder.hidden, mlp.experts[0].down.inputs(), run.router().active);
        let (routes, rows) = (kept.routes.borrow(), run.rows(&kept.rows, active));
        let (dx, d_outputs) = (run.rows(&ws.dx, k), run.rows(&ws.d_of_experts, active * k));
        take_rows(rows, dx, d_outputs, k)?;
        let (activated, d_activated) = (run.rows(&a.activated, active * f), run.rows(&ws.d_activated, active * f));
        for (DenseMlp { down, .. }, rows) in groups(mlp, &routes) {
            let (x, dy, dx) = (rows.of(activated, f), rows.of(d_outputs, k), rows.of(d_activated, f));
            down.backward(x, dy, dx, false, self.lora_hidden())?;
        }
        let (weights, d_weights) = (run.rows(&kept.weights, active), run.rows(&ws.d_weights, active));
        let d_gate_up = run.rows(&a.gate_up, active * 2 * f);
        swiglu::weighed_backward(d_gate_up, f, weights, d_activated, d_weights)?;

        let (normed, gathered) = (run.rows(&a.middle_normed, k), run.rows(&run.ws.of_experts, active * k));
        take_rows(rows, normed, gathered, k)?;
        // What an expert gave is done with: the gradient of what it took in has its place.
        let d_gathered = d_outputs;
        for (DenseMlp { gate_up, .. }, rows) in groups(mlp, &routes) {
            let (x, dy, dx) = (rows.of(gathered, k), rows.of(d_gate_up, 2 * f), rows.of(d_gathered, k));
            gate_up.backward(x, dy, dx, false, self.lora_hidden())?;
        }
        let d_normed = run.rows(&ws.d_normed, k);
        self.router_backward(mlp, &routes, d_weights.read()?, normed, d_normed)?;
        if let Some(shared) = &mlp.shared {
            self.shared_backward(shared, kept, dx, normed, d_normed)?;
        }
        let choices = &mut run.routers.notes.borrow_mut().choices;
        choices.resize_with(choices.len().max(index + 1), Load::default);
        choices[index].add(&run.router().load(&routes.routing));
        add_up(d_gathered, run.rows(&kept.places, active), d_normed, k)
    }

    /// From the gradient of the weights at all places to that of the normed rows, written.
    fn router_backward(
        &self,
        mlp: &Mixture,
        Routes { routing, dispatch }: &Routes,
        d_weights: Vec<f32>,
        normed: View<bf16>,
        d_normed: View<bf16>,
    ) -> Result<()> {
        let (run, router) = (&self.run, self.run.router());
        let (mut d_choices, mut d_scores) = (Vec::new(), vec![0f32; run.t * router.experts]);
        dispatch.by_choice(&d_weights, &mut d_choices);
        run.with_team(d_scores.len(), |team| {
            router.backward(team, routing, &d_choices, &mut d_scores);
            if let Some(slopes) = self.balance_slopes {
                balance_backward(team, routing, slopes, &vec![1; run.t], &mut d_scores);
            }
        });
        let d_products = run.rows(&self.ws.d_router_products, router.experts);
        d_products.write(&rounded(&d_scores))?;
        mlp.router.backward(normed, d_products, d_normed, false, self.lora_hidden())
    }

    /// From the gradient of the layer's output to what the expert of all rows adds to that of the normed ones.
    fn shared_backward(
        &self,
        SharedMlp { mlp, gate }: &SharedMlp<Linear>,
        kept: &ExpertActivations,
        dx: View<bf16>,
        normed: View<bf16>,
        d_normed: View<bf16>,
    ) -> Result<()> {
        let (run, ws, f) = (&self.run, self.ws, mlp.down.inputs());
        let (activated, d_activated) = (run.rows(&kept.shared_activated, f), run.rows(&ws.d_activated, f));
        mlp.down.backward(activated, dx, d_activated, false, self.lora_hidden())?;
        let d_gate_up = run.rows(&kept.shared_gate_up, 2 * f);
        match gate {
            None => swiglu::backward(d_gate_up, f, d_activated)?,
            Some(gate) => {
                let (gates, d_gates) = (run.rows(&kept.shared_gates, 1), run.rows(&ws.d_weights, 1));
                swiglu::weighed_backward(d_gate_up, f, gates, d_activated, d_gates)?;
                let slopes = gates.read()?.into_iter().zip(d_gates.read()?).map(|(gate, d)| d * gate * (1.0 - gate));
                let d_products = run.rows(&ws.d_router_products, 1);
                d_products.write(&rounded(&slopes.collect::<Vec<f32>>()))?;
                gate.backward(normed, d_products, d_normed, true, self.lora_hidden())?;
            }
        }
        mlp.gate_up.backward(normed, d_gate_up, d_normed, true, self.lora_hidden())
    }
}

/// The places of an expert's rows.
#[derive(Clone, Copy)]
struct Places {
    start: usize,
    end: usize,
}

impl Places {
    /// Its rows of `width` values.
    fn of<'v, T: bytemuck::Pod>(self, view: View<'v, T>, width: usize) -> View<'v, T> {
        view.part(self.start * width..self.end * width)
    }
}

/// The experts that have rows, with their places.
fn groups<'m, 'w>(
    mlp: &'m Mixture<'w>,
    routes: &'m Routes,
) -> impl Iterator<Item = (&'m DenseMlp<Linear<'w>>, Places)> {
    let groups = mlp.experts.iter().zip(routes.dispatch.groups());
    groups.filter(|(_, rows)| !rows.is_empty()).map(|(mlp, rows)| (mlp, Places { start: rows.start, end: rows.end }))
}

fn rounded(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|&value| bf16::from_f32(value)).collect()
}
