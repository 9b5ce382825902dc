//! What a model has to be to come to a device, and how its weights come there.

use std::ops::Range;

use anyhow::{Context as _, Result, ensure};
use half::bf16;

use super::widths::AttentionWidths;
use crate::model::decoder::Decoder;
use crate::model::files::{Source, pieces};
use crate::model::layout::{Layout, Mlp};
use crate::model::routing::choice_biases;
use crate::ops::attention::packed::device as attention;
use crate::ops::delta::device as delta;
use crate::ops::device::{Buffer, Class, Device};

/// Refuses shapes that the kernels cannot compute.
pub(super) fn check(decoder: &Decoder, layout: &Layout) -> Result<()> {
    let kinds = super::kinds(decoder);
    match AttentionWidths::widest(layout.layers.iter().map(|layer| AttentionWidths::of(layer, &kinds))).latent {
        Some(latent) => latent.check()?,
        None => attention::check(decoder.heads)?,
    }
    decoder.delta.map_or(Ok(()), delta::check)?;
    let mut sizes = vec![("hidden_size", decoder.hidden)];
    for layer in &layout.layers {
        match &layer.mlp {
            Mlp::Dense(mlp) => sizes.push(("intermediate_size", mlp.down.inputs)),
            Mlp::Experts(mlp) => {
                sizes.push(("moe_intermediate_size", mlp.experts[0].down.inputs));
                // What lies behind a bias in the buffer has to be read eight values at a time too.
                sizes.extend(mlp.bias.as_ref().map(|bias| ("n_routed_experts", bias.range.len())));
                sizes.extend(mlp.shared.as_ref().map(|shared| ("the shared expert's size", shared.mlp.down.inputs)));
            }
        }
    }
    for (name, size) in sizes {
        ensure!(size.is_multiple_of(8), "{name} = {size} has no CUDA kernels: it must be a multiple of 8");
    }
    Ok(())
}

/// Of each layer the biases of its router's choice, where it has some.
pub(super) fn biases_of(layout: &Layout, source: &dyn Source) -> Result<Vec<Option<Vec<f32>>>> {
    let read = |place: &Range<usize>| {
        let entry = layout.entries_of(place).next().context("a place without a tensor")?;
        let mut biases = vec![0f32; place.len()];
        source.values(entry, 0..place.len(), &mut biases)?;
        Ok(biases)
    };
    choice_biases(layout).map(|place| place.map(read).transpose()).collect()
}

/// All of `source` in bf16, which holds what a file of bf16 does to the bit.
pub(super) fn upload_rounded(device: &Device, layout: &Layout, source: &dyn Source) -> Result<Buffer<bf16>> {
    let (buffer, mut rounded) = (device.buffer(Class::Weights, layout.len())?, Vec::new());
    for entry in &layout.entries {
        let mut start = entry.range.start;
        pieces(source, entry, |values| {
            rounded.clear();
            rounded.extend(values.iter().map(|&value| bf16::from_f32(value)));
            buffer.part(start..start + values.len()).write(&rounded)?;
            start += values.len();
            Ok(())
        })?;
    }
    Ok(buffer)
}
