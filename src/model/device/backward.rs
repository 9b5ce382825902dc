//! The layers' backward on a device, in the order of `decoder.rs`.

use super::workspace::Activations;
use super::*;
use crate::model::layout::{Attention, DenseMlp, HeadNorms, Mlp};

/// The way back of a run over whole sequences.
pub(super) struct Backward<'a> {
    pub(super) run: Run<'a>,
    pub(super) tiles: View<'a, [u32; 3]>,
    pub(super) ws: &'a Workspace,
}

impl<'a> Backward<'a> {
    /// Scratch of an adapter's products.
    fn inner(&self) -> Inner<'a> {
        Inner { values: self.ws.forward.inner.all(), gradient: self.ws.d_inner.all() }
    }

    /// Turns `dx`, the gradient of the layer's output, into that of its middle.
    pub(super) fn mlp_backward(&self, index: usize) -> Result<()> {
        let (run, ws, (layer, a)) = (&self.run, self.ws, self.run.layer(index));
        let Mlp::Dense(DenseMlp { gate_up, down }) = &layer.mlp;
        let (width, f) = (run.model.decoder.hidden, run.model.decoder.intermediate);
        let (dx, d_activated) = (run.rows(&ws.dx, width), run.rows(&ws.d_activated, f));
        down.backward(run.rows(&a.activated, f), dx, d_activated, self.inner())?;
        let d_gate_up = run.rows(&a.gate_up, 2 * f);
        swiglu::backward(d_gate_up, f, d_activated)?;
        let (normed, d_normed) = (run.rows(&a.middle_normed, width), run.rows(&ws.d_normed, width));
        gate_up.backward(normed, d_gate_up, d_normed, self.inner())?;
        let (x, factors) = (run.rows(&a.middle, width), run.rows(&a.middle_factors, 1));
        let (kept, d_norm) = (rms_norm::Kept { x, w: layer.mlp_norm.values, factors }, layer.mlp_norm.gradient);
        rms_norm::backward(Rows::dense(width), kept, d_normed, dx, true, d_norm, ws.partial.all())
    }

    /// Turns `dx`, the gradient of the layer's middle, into that of its input.
    pub(super) fn attention_backward(&self, index: usize) -> Result<()> {
        let (run, ws, (layer, a)) = (&self.run, self.ws, self.run.layer(index));
        let Attention::Grouped(grouped) = &layer.attention;
        let (heads, width) = (run.model.decoder.heads, run.model.decoder.hidden);
        let (dx, attended) = (run.rows(&ws.dx, width), run.rows(&a.attended, heads.output()));
        let d_attended = run.rows(&ws.d_attended, heads.output());
        grouped.output.backward(attended, dx, d_attended, self.inner())?;
        let (qkv, d_qkv) = (run.rows(&a.qkv, heads.row()), run.rows(&ws.d_qkv, heads.row()));
        let kept = attention::Kept { qkv, o: attended, lse: run.rows(&a.lse, heads.query) };
        attention::backward(heads, kept, self.tiles, d_attended, run.rows(&ws.delta, heads.query), d_qkv)?;
        rope::rotate(run.angles(), d_qkv, run.positions, heads.query + heads.key_value, heads.row(), -1.0)?;
        if let Some(norms) = &grouped.head_norms {
            self.head_norms_backward(norms, a, d_qkv)?;
        }
        if let Some(d_bias) = grouped.bias.and_then(|bias| bias.gradient) {
            linear::bias_backward(d_qkv, d_bias, ws.partial.all())?;
        }
        let (normed, d_normed) = (run.rows(&a.normed, width), run.rows(&ws.d_normed, width));
        grouped.qkv.backward(normed, d_qkv, d_normed, self.inner())?;
        let (x, factors) = (run.rows(run.ws.stream(index), width), run.rows(&a.factors, 1));
        let (kept, d_norm) =
            (rms_norm::Kept { x, w: layer.attention_norm.values, factors }, layer.attention_norm.gradient);
        rms_norm::backward(Rows::dense(width), kept, d_normed, dx, true, d_norm, ws.partial.all())
    }

    /// Through Qwen3's norms of queries and keys, in place; values pass unchanged.
    fn head_norms_backward(&self, norms: &HeadNorms<Weight>, a: &Activations, d_qkv: View<bf16>) -> Result<()> {
        let raw = self.run.rows(&a.raw_qkv, self.run.model.decoder.heads.row());
        for part in self.run.normed_parts(norms) {
            let factors = a.head_factors.part(part.factors);
            let kept = rms_norm::Kept { x: raw.part(part.start..raw.len()), w: part.weight.values, factors };
            let d = d_qkv.part(part.start..d_qkv.len());
            rms_norm::backward(part.rows, kept, d, d, false, part.weight.gradient, self.ws.partial.all())?;
        }
        Ok(())
    }
}
