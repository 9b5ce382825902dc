//! Grouped attention of a layer, forward and backward: `Wo (attention(rope(Wqkv x)) sigmoid(gates))`, with norms of heads
//! and with gates where a family has them.

use super::decoder::{Buffers, Place, Sequences};
use super::weights::Vector;
use super::workspace::{Activations, LayerGradients, ProductInputs};
use crate::model::decoder::Decoder;
use crate::model::layout::{GroupedAttention, HeadNorms};
use crate::ops::attention::{Heads, packed};
use crate::ops::gate::{self, Gate, Gates};
use crate::ops::linear::{self, Epilogue, Linear};
use crate::ops::memory::sized;
use crate::ops::rms_norm::{self, Kept, Vectors};
use crate::ops::team::Team;

/// The parts of a layer's attention, ready for products.
type Parts<'a> = GroupedAttention<Linear<'a>, Vector<'a>>;

impl Decoder {
    /// From normed rows, which the buffers hold, to the middle of the layer.
    pub(super) fn grouped_forward(
        &self,
        team: &Team,
        parts: &Parts,
        Place { index, input, context }: Place,
        (x, a, inputs): Buffers,
    ) {
        let (t, heads) = (input.tokens.len(), self.heads);
        self.project_qkv(team, parts, a, inputs);
        self.rope.rotate_parts(team, &mut a.qkv, input.positions, self.rotated_parts(), heads.row());
        let (o, lse) = (sized(&mut a.attended, t * heads.output()), sized(&mut a.lse, t * heads.query));
        context.attend(team, self, index, &a.qkv, o, lse);
        let outputs = self.gated_outputs(team, &a.attended, &a.projected, &mut inputs.gated);
        parts.output.forward(team, outputs, sized(&mut a.middle, x.len()), Epilogue::Residual(x));
    }

    /// Queries, keys and values of normed rows, with biases and head norms, not yet rotated.
    fn project_qkv(&self, team: &Team, parts: &Parts, a: &mut Activations, inputs: &mut ProductInputs) {
        let epilogue = parts.bias.as_ref().map_or(Epilogue::None, |bias| Epilogue::Bias(bias.values()));
        let t = inputs.normed.len() / self.hidden;
        let qkv = sized(&mut a.qkv, t * self.heads.row());
        if let Some(gates) = self.output_gates() {
            let projected = sized(&mut a.projected, t * gates.row);
            parts.qkv.forward(team, &inputs.normed, projected, epilogue);
            without_gates(team, self.heads, gates, projected, qkv);
        } else {
            parts.qkv.forward(team, &inputs.normed, qkv, epilogue);
        }
        let Some(norms) = &parts.head_norms else { return };
        let unnormed = if self.gated { &mut inputs.unnormed } else { &mut a.projected };
        unnormed.clear();
        unnormed.extend_from_slice(qkv);
        for (norm, vectors) in self.normed_vectors(norms) {
            rms_norm::forward(team, vectors, unnormed, norm.values(), self.eps, qkv);
        }
    }

    /// Where in a row the queries and the keys are, each with its norm: over each head, or over all of them.
    fn normed_vectors<'n, 'w>(&self, norms: &'n HeadNorms<Vector<'w>>) -> [(&'n Vector<'w>, Vectors); 2] {
        let (row, Heads { query, key_value, size, .. }) = (self.heads.row(), self.heads);
        let vectors = |norm: &Vector, first, heads| Vectors { row, first, count: heads * size / norm.values().len() };
        let queries = vectors(&norms.query, 0, query);
        [(&norms.query, queries), (&norms.key, vectors(&norms.key, self.heads.output(), key_value))]
    }

    /// What the last product takes in: the outputs of heads, times their gates.
    fn gated_outputs<'o>(
        &self,
        team: &Team,
        attended: &'o [f32],
        projected: &[f32],
        gated: &'o mut Vec<f32>,
    ) -> &'o [f32] {
        let Some(gates) = self.output_gates() else { return attended };
        let gated = sized(gated, attended.len());
        gated.copy_from_slice(attended);
        gate::forward(team, Gate::Sigmoid, gates, projected, gated);
        gated
    }

    /// From the gradient of the attention's output to that of the normed rows, which `inputs` holds, left in
    /// `d.normed`.
    pub(super) fn grouped_backward(
        &self,
        team: &Team,
        parts: &Parts,
        Sequences { input, segments }: Sequences,
        (a, inputs): (&Activations, &mut ProductInputs),
        (d, dx): (&mut LayerGradients, &[f32]),
        g: &mut [f32],
    ) {
        let outputs = self.gated_outputs(team, &a.attended, &a.projected, &mut inputs.gated);
        parts.output.backward_weight(team, outputs, dx, g);
        let d_attended = sized(&mut d.attended, a.attended.len());
        parts.output.backward_input(team, dx, d_attended);
        if let Some(gates) = self.output_gates() {
            let d_projected = sized(&mut d.projected, a.projected.len());
            gate::backward(team, Gate::Sigmoid, gates, &a.projected, &a.attended, d_attended, d_projected);
        }
        let forward = packed::Forward { qkv: &a.qkv, o: &a.attended, lse: &a.lse };
        let d_qkv = sized(&mut d.qkv, a.qkv.len());
        packed::backward(team, self.heads, forward, segments, d_attended, d_qkv);
        self.rope.rotate_parts_back(team, d_qkv, input.positions, self.rotated_parts(), self.heads.row());
        let mut d_product = &d.qkv;
        if let Some(norms) = &parts.head_norms {
            let unnormed = match self.output_gates() {
                None => &a.projected,
                Some(gates) => {
                    without_gates(team, self.heads, gates, &a.projected, sized(&mut inputs.unnormed, a.qkv.len()));
                    &inputs.unnormed
                }
            };
            self.head_norms_backward(team, norms, unnormed, &d.qkv, &mut d.raw_qkv, g);
            d_product = &d.raw_qkv;
        }
        if let Some(gates) = self.output_gates() {
            beside_gates(team, self.heads, gates, d_product, &mut d.projected);
            d_product = &d.projected;
        }
        if let Some(d_bias) = parts.bias.as_ref().and_then(|bias| bias.gradient(g)) {
            linear::backward_bias(team, d_product, d_bias);
        }
        parts.qkv.backward_weight(team, &inputs.normed, d_product, g);
        parts.qkv.backward_input(team, d_product, sized(&mut d.normed, inputs.normed.len()));
    }

    /// Through norms of queries and keys; values pass unchanged.
    fn head_norms_backward(
        &self,
        team: &Team,
        norms: &HeadNorms<Vector>,
        unnormed: &[f32],
        d_qkv: &[f32],
        d_raw: &mut Vec<f32>,
        g: &mut [f32],
    ) {
        d_raw.clear();
        d_raw.extend_from_slice(d_qkv);
        let normed = self.heads.row() - self.heads.key_value * self.heads.size;
        d_raw.chunks_exact_mut(self.heads.row()).for_each(|row| row[..normed].fill(0.0));
        for (norm, vectors) in self.normed_vectors(norms) {
            let kept = Kept { x: unnormed, w: norm.values(), eps: self.eps };
            rms_norm::backward(team, vectors, kept, d_qkv, d_raw, norm.gradient(g));
        }
    }
}

/// Where in a projected row and in one of the attention the same values are: each query, then keys and values.
fn parts(heads: Heads, gates: Gates) -> impl Iterator<Item = (usize, usize, usize)> {
    let queries = (0..heads.query).map(move |head| (head * gates.step, head * heads.size, heads.size));
    let behind = (heads.query * gates.step, heads.output(), heads.row() - heads.output());
    queries.chain([behind])
}

/// `projected (T, with gates)` -> `qkv (T, row)`.
fn without_gates(team: &Team, heads: Heads, gates: Gates, projected: &[f32], qkv: &mut [f32]) {
    let rows = team.piece(qkv.len() / heads.row());
    team.each(projected.chunks(rows * gates.row).zip(qkv.chunks_mut(rows * heads.row())), |(projected, qkv)| {
        for (projected, qkv) in projected.chunks_exact(gates.row).zip(qkv.chunks_exact_mut(heads.row())) {
            parts(heads, gates).for_each(|(from, to, n)| qkv[to..to + n].copy_from_slice(&projected[from..from + n]));
        }
    });
}

/// The backward of [`without_gates`], which leaves the places of gates alone.
fn beside_gates(team: &Team, heads: Heads, gates: Gates, d_qkv: &[f32], d_projected: &mut [f32]) {
    let rows = team.piece(d_qkv.len() / heads.row());
    team.each(
        d_qkv.chunks(rows * heads.row()).zip(d_projected.chunks_mut(rows * gates.row)),
        |(d_qkv, d_projected)| {
            for (d_qkv, d) in d_qkv.chunks_exact(heads.row()).zip(d_projected.chunks_exact_mut(gates.row)) {
                parts(heads, gates).for_each(|(to, from, n)| d[to..to + n].copy_from_slice(&d_qkv[from..from + n]));
            }
        },
    );
}
