//! Attention over one sequence, alone.

use anyhow::Result;
use half::bf16;
use serde_json::{Value, json};

use crate::timing::{random, seconds};
use reckon::ops::attention::packed::device as attention;
use reckon::ops::attention::{Heads, Segment};
use reckon::ops::device::{Class, Device};

/// FLOPs of the forward's two products over the causal half of `t x t` scores.
pub(crate) fn flops(heads: Heads, t: usize) -> f64 {
    (heads.query * (heads.size + heads.value)) as f64 * (t as f64).powi(2)
}

/// Seconds forward and backward over `t` tokens, and rates that count 2 products forward and 5 backward, however many are
/// computed.
pub(crate) fn measure(device: &Device, heads: Heads, t: usize) -> Result<Value> {
    let class = Class::Activations;
    let qkv = device.upload(class, &random(3, t * heads.row()))?;
    let d_o = device.upload(class, &random(4, t * heads.output()))?;
    let o = device.buffer::<bf16>(class, t * heads.output())?;
    let d_qkv = device.buffer::<bf16>(class, t * heads.row())?;
    let (lse, delta) = (device.buffer::<f32>(class, t * heads.query)?, device.buffer::<f32>(class, t * heads.query)?);
    let tiles = attention::upload_tiles(device, &[Segment::alone(0..t)])?;
    let kept = attention::Kept { qkv: qkv.all(), o: o.all(), lse: lse.all() };
    let forward = || attention::forward(heads, qkv.all(), tiles.all(), o.all(), lse.all());
    let backward = || attention::backward(heads, kept, tiles.all(), d_o.all(), delta.all(), d_qkv.all());
    let forward_s = seconds(5, forward, || o.part(0..1).read().map(drop))?;
    let backward_s = seconds(5, backward, || d_qkv.part(0..1).read().map(drop))?;
    let flops = flops(heads, t);
    Ok(json!({
        "tokens": t, "heads": heads.query, "key_value_heads": heads.key_value, "head_size": heads.size,
        "forward_s": forward_s, "backward_s": backward_s,
        "forward_tflops": flops / forward_s / 1e12, "backward_tflops": 2.5 * flops / backward_s / 1e12,
    }))
}
