//! Latent attention of a layer on a device, forward and backward, in the order of `model/cpu/latent.rs`.

use anyhow::Result;
use half::bf16;

use super::decoder::{Backward, Context, Run};
use super::workspace::Activations;
use crate::model::latent::EPS;
use crate::model::layout::{LatentAttention, LatentQuery};
use crate::ops::attention::latent::{Latent, device as latent};
use crate::ops::device::View;
use crate::ops::device::columns::Rows;
use crate::ops::linear::device::{Linear, Weight};
use crate::ops::rms_norm::device as rms_norm;
use crate::ops::rope::{Parts as Turned, device as rope};

/// The parts of a layer's attention, as products read them.
type Parts<'a> = LatentAttention<Linear<'a>, Weight<'a>>;

/// Where in rows of what is cached the latents lie, which are normed.
fn latents_of(s: Latent) -> Rows {
    Rows { k: s.rank, heads: 1, stride: s.compressed() }
}

impl Run<'_> {
    /// Sizes, and what queries are multiplied by.
    fn latent(&self) -> (Latent, f32) {
        self.model.decoder.latent.expect("a model with latent attention has its sizes")
    }

    /// Turns what is rotated of queries and keys, back again where `sign` is -1.
    fn rotate_latents(&self, queries: View<bf16>, keys: View<bf16>, sign: f32) -> Result<()> {
        let ((s, _), angles) = (self.latent(), self.angles());
        let (step, of_keys) = (s.compressed(), Turned { count: 1, ..s.rotated_parts() });
        let of_queries = Turned { count: s.heads, ..of_keys };
        rope::rotate(angles, queries, self.positions, of_queries, s.heads * step, sign)?;
        rope::rotate(angles, keys, self.positions, of_keys, step, sign)
    }

    /// From normed rows to the middle of the layer, which holds its input.
    pub(super) fn latent_forward(&self, index: usize, parts: &Parts, a: &Activations) -> Result<()> {
        let ((s, factor), kept, hidden) = (self.latent(), &a.latent, self.ws.lora_hidden.all());
        let normed = self.rows(&a.normed, self.model.decoder.hidden);
        let queries = self.rows(&kept.queries, s.queries());
        match &parts.query {
            LatentQuery::Plain(query) => query.forward(normed, queries, false, hidden)?,
            LatentQuery::Compressed { down, norm, up } => {
                down.forward(normed, self.rows(&kept.compressed_queries, norm.values.len()), false, hidden)?;
                up.forward(self.norm_queries(*norm, a)?, queries, false, hidden)?;
            }
        }
        let (compressed, keys) = (self.rows(&kept.compressed, s.compressed()), self.rows(&kept.keys, s.compressed()));
        parts.compress.forward(normed, compressed, false, hidden)?;
        keys.copy(compressed)?;
        let (norm, factors) = (parts.norm.values, self.rows(&kept.factors, 1));
        rms_norm::forward(latents_of(s), compressed, norm, keys, factors, EPS)?;
        let absorbed = self.rows(&kept.absorbed, s.heads * s.compressed());
        latent::absorb(s, &parts.expand, factor, queries, absorbed, hidden)?;
        self.rotate_latents(absorbed, keys, 1.0)?;
        self.attend_latents(index, s, (absorbed, keys), a)?;
        let values = self.expand_latents(parts, a)?;
        parts.output.forward(values, self.rows(&a.middle, self.model.decoder.hidden), true, hidden)
    }

    /// Compressed queries, normed.
    fn norm_queries(&self, norm: Weight, a: &Activations) -> Result<View<'_, bf16>> {
        let (kept, rank) = (&a.latent, norm.values.len());
        let (compressed, normed) =
            (self.rows(&kept.compressed_queries, rank), self.rows(&self.ws.latent.queries, rank));
        let factors = self.rows(&kept.query_factors, 1);
        rms_norm::forward(Rows::dense(rank), compressed, norm.values, normed, factors, EPS)?;
        Ok(normed)
    }

    /// Absorbed queries and keys, rotated -> sums of latents; the cache, where there is one, takes keys in first.
    fn attend_latents(&self, index: usize, s: Latent, rows: (View<bf16>, View<bf16>), a: &Activations) -> Result<()> {
        let (o, lse) = (self.rows(&a.attended, s.heads * s.rank), self.rows(&a.lse, s.heads));
        let scores = &self.ws.latent.scores;
        match self.context {
            Context::Segments { segments, .. } => latent::forward(s, rows, segments, scores, o, lse),
            Context::Prompt { segments, cache, slots, .. } => {
                cache.put_latents(index, rows.1, slots)?;
                latent::forward(s, rows, segments, scores, o, lse)
            }
            Context::Cached { cache, slots, .. } => {
                cache.put_latents(index, rows.1, slots.there)?;
                latent::cached(s, (cache, index), rows.0, slots, scores, o)
            }
        }
    }

    /// Sums of latents to the outputs of heads.
    fn expand_latents(&self, parts: &Parts, a: &Activations) -> Result<View<'_, bf16>> {
        let (s, _) = self.latent();
        let (attended, values) =
            (self.rows(&a.attended, s.heads * s.rank), self.rows(&self.ws.latent.values, s.outputs()));
        latent::expand(s, &parts.expand, attended, values, self.ws.lora_hidden.all())?;
        Ok(values)
    }
}

impl Backward<'_> {
    /// From `dx`, the gradient of the layer's middle, to that of the normed rows.
    pub(super) fn latent_backward(&self, parts: &Parts, a: &Activations) -> Result<()> {
        let (run, ws, kept, lora) = (&self.run, self.ws, &a.latent, self.lora_hidden());
        let ((s, factor), width, size) = (run.latent(), run.model.decoder.hidden, run.latent().0.compressed());
        let (dx, d_values) = (run.rows(&ws.dx, width), run.rows(&ws.latent.values, s.outputs()));
        parts.output.backward(run.expand_latents(parts, a)?, dx, d_values, false, lora)?;
        let (o, d_o) = (run.rows(&a.attended, s.heads * s.rank), run.rows(&ws.d_attended, s.heads * s.rank));
        latent::expand_backward(s, &parts.expand, (o, d_values), d_o, lora)?;

        let d_absorbed = run.rows(&ws.latent.absorbed, s.heads * size);
        let (keys, d_keys) = (run.rows(&kept.keys, size), run.rows(&ws.latent.keys, size));
        let (queries, lse) = (run.rows(&kept.absorbed, s.heads * size), run.rows(&a.lse, s.heads));
        let scratch = latent::BackwardScratch {
            scores: &ws.forward.latent.scores,
            gradients: &ws.latent.scores,
            delta: run.rows(&ws.delta, s.heads),
            keys: run.rows(&ws.latent.wide_keys, size),
        };
        let forward = latent::Kept { queries, keys, o, lse };
        latent::backward(s, forward, self.segments, d_o, scratch, (d_absorbed, d_keys))?;
        run.rotate_latents(d_absorbed, d_keys, -1.0)?;

        let (queries, d_queries) = (run.rows(&kept.queries, s.queries()), run.rows(&ws.latent.queries, s.queries()));
        latent::absorb_backward(s, &parts.expand, factor, (queries, d_absorbed), d_queries, lora)?;
        let (x, factors) = (run.rows(&kept.compressed, size), run.rows(&kept.factors, 1));
        let of_latents = rms_norm::Kept { x, w: parts.norm.into(), factors };
        let d_norm = parts.norm.gradient;
        rms_norm::backward(latents_of(s), of_latents, d_keys, d_keys, false, d_norm, ws.partial.all())?;
        let (normed, d_normed) = (run.rows(&a.normed, width), run.rows(&ws.d_normed, width));
        parts.compress.backward(normed, d_keys, d_normed, false, lora)?;
        self.queries_backward(&parts.query, a, d_queries)
    }

    /// From the gradient of the queries to what it adds to that of the normed rows.
    fn queries_backward(
        &self,
        query: &LatentQuery<Linear, Weight>,
        a: &Activations,
        d_queries: View<bf16>,
    ) -> Result<()> {
        let (run, ws, lora, width) = (&self.run, self.ws, self.lora_hidden(), self.run.model.decoder.hidden);
        let (normed, d_normed) = (run.rows(&a.normed, width), run.rows(&ws.d_normed, width));
        match query {
            LatentQuery::Plain(query) => query.backward(normed, d_queries, d_normed, true, lora),
            LatentQuery::Compressed { down, norm, up } => {
                let rank = norm.values.len();
                let d = run.rows(&ws.latent.compressed_queries, rank);
                up.backward(run.norm_queries(*norm, a)?, d_queries, d, false, lora)?;
                let (x, factors) = (run.rows(&a.latent.compressed_queries, rank), run.rows(&a.latent.query_factors, 1));
                let of_queries = rms_norm::Kept { x, w: (*norm).into(), factors };
                rms_norm::backward(Rows::dense(rank), of_queries, d, d, false, norm.gradient, ws.partial.all())?;
                down.backward(normed, d, d_normed, true, lora)
            }
        }
    }
}
