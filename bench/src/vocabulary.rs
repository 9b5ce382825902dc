//! What a vocabulary takes beside its weights: logits and their gradient exist a chunk at a time.

use anyhow::Result;
use half::bf16;
use serde_json::{Value, json};

use crate::timing::random;
use reckon::model::ModelConfig;
use reckon::ops::device::{Class, Device};
use reckon::ops::linear::device::Weight;
use reckon::ops::linear_logprob::device::{self as linear_logprob, Head, Scratch, Slopes};

/// Rows that predict a target: more than any chunk has.
const ROWS: usize = 2048;

/// MiB of the scratch that log-probabilities over the model's vocabulary take, forward and backward.
pub(crate) fn measure(device: &Device, config: &ModelConfig) -> Result<Value> {
    let (v, k) = (config.vocab_size, config.hidden_size);
    let rows = ROWS.min(4 * v);
    let (h, w) = (device.upload(Class::Weights, &random(7, rows * k))?, random(8, v * k));
    let (w, dw) = (device.upload(Class::Weights, &w)?, device.zeros::<f32>(Class::Gradients, v * k)?);
    let targets: Vec<u32> = (0..rows).map(|row| (row % v) as u32).collect();
    let (targets, g) = (device.upload(Class::Weights, &targets)?, device.upload(Class::Weights, &vec![1f32; rows])?);
    let dh = device.buffer::<bf16>(Class::Weights, rows * k)?;
    let head = Head { w: Weight::trained(w.all(), dw.all()), k, temperature: 1.0 };
    let before = device.held(Class::Activations);
    let mut scratch = Scratch::new(device)?;
    linear_logprob::forward(head, h.all(), targets.all(), &mut scratch)?;
    let slopes = Slopes { logprobs: g.all(), entropies: None };
    linear_logprob::backward(head, h.all(), targets.all(), slopes, dh.all(), &mut scratch)?;
    let taken = device.held(Class::Activations) - before;
    Ok(json!({ "vocabulary": v, "mib_beside_weights": taken as f64 / f64::from(1 << 20) }))
}
