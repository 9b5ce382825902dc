//! Latent attention of a layer on a device, forward and backward, in the order of `model/cpu/latent.rs`.

use anyhow::{Result, ensure};
use half::bf16;

use super::decoder::{Backward, Context, Run};
use super::workspace::Activations;
use crate::model::Decoder;
use crate::model::layout::{Attention, LatentAttention, LatentQuery, Layout};
use crate::ops::attention::latent::{Latent, device as latent};
use crate::ops::device::columns::Rows;
use crate::ops::device::{Buffer, Class, Device, View};
use crate::ops::linear::device::{Linear, Weight};
use crate::ops::rms_norm::device as rms_norm;
use crate::ops::rope::{Parts as Turned, device as rope};

/// Added under the root of the norms of latents and of compressed queries, whatever `rms_norm_eps` is.
const EPS: f32 = 1e-6;

/// The parts of a layer's attention, as products read them.
type Parts<'a> = LatentAttention<Linear<'a>, Weight<'a>>;

/// The sizes of a model's latent attention that decide its buffers, where it has any.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Widths {
    latent: Option<Latent>,
    /// Values that queries are compressed to; 0 where they are not.
    query_rank: usize,
}

/// What latent attention keeps of a layer. `(T, ..)` each.
#[derive(Debug)]
pub(super) struct Kept {
    /// Queries of heads, not yet absorbed.
    queries: Buffer<bf16>,
    /// What they were made of, before its norm; empty where it was the stream.
    compressed_queries: Buffer<bf16>,
    query_factors: Buffer<f32>,
    /// Latents before their norm, with what is rotated beside them.
    compressed: Buffer<bf16>,
    factors: Buffer<f32>,
    /// Queries in the space of latents, rotated.
    absorbed: Buffer<bf16>,
    /// Latents, normed, with what is rotated beside them.
    keys: Buffer<bf16>,
}

/// What a forward works in; inputs of products that the backward computes again.
#[derive(Debug)]
pub(super) struct Inputs {
    /// Compressed queries, normed.
    queries: Buffer<bf16>,
    /// Outputs of heads.
    values: Buffer<bf16>,
    scores: latent::Scratch,
}

/// Gradients of what lies between its operations.
#[derive(Debug)]
pub(super) struct Gradients {
    values: Buffer<bf16>,
    queries: Buffer<bf16>,
    compressed_queries: Buffer<bf16>,
    absorbed: Buffer<bf16>,
    keys: Buffer<bf16>,
    /// That of keys, before it is rounded.
    wide_keys: Buffer<f32>,
    scores: latent::Scratch,
}

impl Widths {
    pub(super) fn of(decoder: &Decoder, layout: &Layout) -> Self {
        let query_rank = layout.layers.iter().find_map(|layer| match &layer.attention {
            Attention::Latent(LatentAttention { query: LatentQuery::Compressed { norm, .. }, .. }) => Some(norm),
            _ => None,
        });
        let query_rank = query_rank.map_or(0, |norm| norm.range.len());
        Self { latent: decoder.latent.map(|(sizes, _)| sizes), query_rank }
    }

    /// Refuses sizes that the kernels cannot compute, by their key in the model's config.
    pub(super) fn check(self) -> Result<()> {
        let Some(s) = self.latent else { return Ok(()) };
        for (key, size) in [
            ("kv_lora_rank", s.rank),
            ("qk_rope_head_dim", s.rotated),
            ("qk_nope_head_dim", s.plain),
            ("v_head_dim", s.value),
            ("q_lora_rank", self.query_rank),
        ] {
            ensure!(size.is_multiple_of(8), "{key} = {size} has no CUDA kernels: it must be a multiple of 8");
        }
        Ok(())
    }

    /// Values of a token that one of `of` each takes.
    fn width(self, of: impl Fn(Latent) -> usize) -> usize {
        self.latent.map_or(0, of)
    }

    /// The widest row that is normed.
    pub(super) fn normed(self) -> usize {
        self.width(|s| s.rank).max(self.query_rank)
    }

    fn scores(self, device: &Device, class: Class, t: usize, longest: usize) -> Result<latent::Scratch> {
        latent::Scratch::new(device, class, self.width(|s| latent::scratch_len(s, t, longest)))
    }
}

impl Kept {
    pub(super) fn new(device: &Device, class: Class, widths: Widths, t: usize) -> Result<Self> {
        let room = |width: usize| device.buffer(class, t * width);
        let factors = |any: bool| device.buffer(class, if any { t } else { 0 });
        Ok(Self {
            queries: room(widths.width(|s| s.queries()))?,
            compressed_queries: room(widths.query_rank)?,
            query_factors: factors(widths.query_rank > 0)?,
            compressed: room(widths.width(|s| s.compressed()))?,
            factors: factors(widths.latent.is_some())?,
            absorbed: room(widths.width(|s| s.heads * s.compressed()))?,
            keys: room(widths.width(|s| s.compressed()))?,
        })
    }
}

impl Inputs {
    /// For `t` tokens that see up to `longest`.
    pub(super) fn new(device: &Device, class: Class, widths: Widths, t: usize, longest: usize) -> Result<Self> {
        Ok(Self {
            queries: device.buffer(class, t * widths.query_rank)?,
            values: device.buffer(class, t * widths.width(|s| s.outputs()))?,
            scores: widths.scores(device, class, t, longest)?,
        })
    }
}

impl Gradients {
    pub(super) fn new(device: &Device, widths: Widths, t: usize) -> Result<Self> {
        let room = |width: usize| device.buffer(Class::Activations, t * width);
        Ok(Self {
            values: room(widths.width(|s| s.outputs()))?,
            queries: room(widths.width(|s| s.queries()))?,
            compressed_queries: room(widths.query_rank)?,
            absorbed: room(widths.width(|s| s.heads * s.compressed()))?,
            keys: room(widths.width(|s| s.compressed()))?,
            wide_keys: device.buffer(Class::Activations, t * widths.width(|s| s.compressed()))?,
            scores: widths.scores(device, Class::Activations, t, t)?,
        })
    }
}

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
        parts.output.backward(run.expand_latents(parts, a)?, dx, d_values, lora)?;
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
        let of_latents = rms_norm::Kept { x, w: parts.norm.values, factors };
        let d_norm = parts.norm.gradient;
        rms_norm::backward(latents_of(s), of_latents, d_keys, d_keys, false, d_norm, ws.partial.all())?;
        let (normed, d_normed) = (run.rows(&a.normed, width), run.rows(&ws.d_normed, width));
        parts.compress.backward(normed, d_keys, d_normed, lora)?;
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
            LatentQuery::Plain(query) => query.backward_adding(normed, d_queries, d_normed, lora),
            LatentQuery::Compressed { down, norm, up } => {
                let rank = norm.values.len();
                let d = run.rows(&ws.latent.compressed_queries, rank);
                up.backward(run.norm_queries(*norm, a)?, d_queries, d, lora)?;
                let (x, factors) = (run.rows(&a.latent.compressed_queries, rank), run.rows(&a.latent.query_factors, 1));
                let of_queries = rms_norm::Kept { x, w: norm.values, factors };
                rms_norm::backward(Rows::dense(rank), of_queries, d, d, false, norm.gradient, ws.partial.all())?;
                down.backward_adding(normed, d, d_normed, lora)
            }
        }
    }
}
