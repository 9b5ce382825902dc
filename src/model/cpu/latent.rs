//! Latent attention of a layer, forward and backward, around the attention over latents that [`super::decoder`]
//! computes.

use super::decoder::{Buffers, Place, Sequences};
use super::weights::Vector;
use super::workspace::{Activations, LatentActivations, LayerGradients, ProductInputs};
use crate::model::decoder::Decoder;
use crate::model::latent::EPS;
use crate::model::layout::{LatentAttention, LatentQuery};
use crate::ops::attention::{latent, packed};
use crate::ops::linear::{Epilogue, Linear};
use crate::ops::memory::sized;
use crate::ops::rms_norm::{self, Kept, Vectors};
use crate::ops::team::Team;

/// The parts of a layer's attention, ready for products.
type Parts<'a> = LatentAttention<Linear<'a>, Vector<'a>>;

/// Multiplies everything.
fn scale(team: &Team, values: &mut [f32], factor: f32) {
    let piece = team.piece(values.len());
    team.each(values.chunks_mut(piece), |values| values.iter_mut().for_each(|value| *value *= factor));
}

/// `to += from`.
pub(super) fn add(team: &Team, from: &[f32], to: &mut [f32]) {
    let piece = team.piece(to.len());
    team.each(to.chunks_mut(piece).zip(from.chunks(piece)), |(to, from)| {
        to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
    });
}

impl Decoder {
    /// Sizes, and what queries are multiplied by.
    fn latent(&self) -> (latent::Latent, f32) {
        self.latent.expect("a model with latent attention has its sizes")
    }

    /// From normed rows, which the buffers hold, to the middle of the layer.
    pub(super) fn latent_forward(
        &self,
        team: &Team,
        parts: &Parts,
        Place { index, input, context }: Place,
        (x, a, inputs): Buffers,
    ) {
        let (t, heads) = (input.tokens.len(), self.heads);
        let rows = sized(&mut a.qkv, t * heads.row());
        self.project_latents(team, parts, input.positions, rows, &mut a.latent, inputs);
        let (o, lse) = (sized(&mut a.attended, t * heads.output()), sized(&mut a.lse, t * heads.query));
        context.attend(team, self, index, rows, o, lse);
        let outputs = self.expand_latents(team, parts, o, inputs);
        parts.output.forward(team, outputs, sized(&mut a.middle, x.len()), Epilogue::Residual(x));
    }

    /// From normed rows, which `inputs` holds, to the rotated rows of the attention `(T, row)`.
    fn project_latents(
        &self,
        team: &Team,
        parts: &Parts,
        positions: &[u32],
        rows: &mut [f32],
        kept: &mut LatentActivations,
        inputs: &mut ProductInputs,
    ) {
        let ((s, factor), t, normed) = (self.latent(), positions.len(), &inputs.normed);
        let queries = sized(&mut kept.queries, t * s.queries());
        match &parts.query {
            LatentQuery::Plain(query) => query.forward(team, normed, queries, Epilogue::None),
            LatentQuery::Compressed { down, norm, up } => {
                let compressed = sized(&mut kept.compressed_queries, t * down.outputs());
                down.forward(team, normed, compressed, Epilogue::None);
                let normed = sized(&mut inputs.latent.queries, t * down.outputs());
                rms_norm::forward(team, Vectors::rows(down.outputs()), compressed, norm.values(), EPS, normed);
                up.forward(team, normed, queries, Epilogue::None);
            }
        }
        scale(team, queries, factor);
        let compressed = sized(&mut kept.compressed, t * s.compressed());
        parts.compress.forward(team, normed, compressed, Epilogue::None);
        let latents = sized(&mut inputs.latent.latents, compressed.len());
        latents.copy_from_slice(compressed);
        rms_norm::forward(team, latents_of(s), compressed, parts.norm.values(), EPS, latents);
        latent::absorb(team, s, &parts.expand, queries, latents, rows);
        self.rope.rotate_parts(team, rows, positions, s.rotated_parts(), self.heads.row());
    }

    /// Sums of latents `(T, H L)` to the outputs of heads.
    fn expand_latents<'i>(
        &self,
        team: &Team,
        parts: &Parts,
        attended: &[f32],
        inputs: &'i mut ProductInputs,
    ) -> &'i [f32] {
        let (s, _) = self.latent();
        let values = sized(&mut inputs.latent.values, attended.len() / self.heads.output() * s.outputs());
        latent::expand(team, s, &parts.expand, attended, values);
        values
    }

    /// From the gradient of the attention's output to that of the normed rows, which `inputs` holds, left in
    /// `d.normed`.
    pub(super) fn latent_backward(
        &self,
        team: &Team,
        parts: &Parts,
        Sequences { input, segments }: Sequences,
        (a, inputs): (&Activations, &mut ProductInputs),
        (d, dx): (&mut LayerGradients, &[f32]),
        g: &mut [f32],
    ) {
        let ((s, factor), kept, t) = (self.latent(), &a.latent, input.tokens.len());
        let values = self.expand_latents(team, parts, &a.attended, inputs);
        parts.output.backward_weight(team, values, dx, g);
        let d_values = sized(&mut d.latent.values, values.len());
        parts.output.backward_input(team, dx, d_values);
        let d_attended = sized(&mut d.attended, a.attended.len());
        latent::expand_backward(team, s, &parts.expand, (&a.attended, d_values), d_attended, g);
        let forward = packed::Forward { qkv: &a.qkv, o: &a.attended, lse: &a.lse };
        let d_rows = sized(&mut d.qkv, a.qkv.len());
        packed::backward(team, self.heads, forward, segments, d_attended, d_rows);
        self.rope.rotate_parts_back(team, d_rows, input.positions, s.rotated_parts(), self.heads.row());
        let d_queries = sized(&mut d.latent.queries, t * s.queries());
        let d_latents = sized(&mut d.latent.latents, kept.compressed.len());
        latent::absorb_backward(team, s, &parts.expand, (&kept.queries, d_rows), d_queries, d_latents, g);
        scale(team, d_queries, factor);

        let d_compressed = sized(&mut d.latent.compressed, kept.compressed.len());
        for (to, from) in d_compressed.chunks_exact_mut(s.compressed()).zip(d_latents.chunks_exact(s.compressed())) {
            to[..s.rank].fill(0.0);
            to[s.rank..].copy_from_slice(&from[s.rank..]);
        }
        let of_latents = Kept { x: &kept.compressed, w: parts.norm.values(), eps: EPS };
        rms_norm::backward(team, latents_of(s), of_latents, d_latents, d_compressed, parts.norm.gradient(g));
        parts.compress.backward_weight(team, &inputs.normed, d_compressed, g);
        parts.compress.backward_input(team, d_compressed, sized(&mut d.normed, inputs.normed.len()));
        queries_backward(team, &parts.query, kept, inputs, d, g);
    }
}

/// Where in rows of what is cached the latents lie, which are normed.
fn latents_of(s: latent::Latent) -> Vectors {
    Vectors { row: s.compressed(), first: 0, count: 1 }
}

/// From the gradient of the queries to what it adds to that of the normed rows.
fn queries_backward(
    team: &Team,
    query: &LatentQuery<Linear, Vector>,
    kept: &LatentActivations,
    inputs: &mut ProductInputs,
    d: &mut LayerGradients,
    g: &mut [f32],
) {
    let (d_queries, part) = (&d.latent.queries, sized(&mut d.latent.part, inputs.normed.len()));
    match query {
        LatentQuery::Plain(query) => {
            query.backward_weight(team, &inputs.normed, d_queries, g);
            query.backward_input(team, d_queries, part);
        }
        LatentQuery::Compressed { down, norm, up } => {
            let (compressed, vectors) = (&kept.compressed_queries, Vectors::rows(down.outputs()));
            let normed = sized(&mut inputs.latent.queries, compressed.len());
            rms_norm::forward(team, vectors, compressed, norm.values(), EPS, normed);
            up.backward_weight(team, normed, d_queries, g);
            // What was normed is not needed again.
            let d_normed = normed;
            up.backward_input(team, d_queries, d_normed);
            let d_compressed = sized(&mut d.latent.compressed_queries, compressed.len());
            d_compressed.fill(0.0);
            let of_queries = Kept { x: compressed, w: norm.values(), eps: EPS };
            rms_norm::backward(team, vectors, of_queries, d_normed, d_compressed, norm.gradient(g));
            down.backward_weight(team, &inputs.normed, d_compressed, g);
            down.backward_input(team, d_compressed, part);
        }
    }
    add(team, part, &mut d.normed);
}
