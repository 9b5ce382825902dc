//! The card's rate of matrix products: what all other rates are measured against.

use anyhow::Result;
use half::bf16;
use serde_json::{Value, json};

use crate::timing::{random, seconds};
use reckon::ops::device::{Class, Device, products};

/// The rate of a product of two square matrices with sides of `n`.
pub(crate) fn measure(device: &Device, n: usize) -> Result<Value> {
    Ok(json!({ "side": n, "tflops": rate(device, n)? / 1e12 }))
}

/// FLOP/s of the same.
pub(crate) fn rate(device: &Device, n: usize) -> Result<f64> {
    let x = device.upload(Class::Activations, &random(1, n * n))?;
    let w = device.upload(Class::Activations, &random(2, n * n))?;
    let y = device.buffer::<bf16>(Class::Activations, n * n)?;
    let wait = || y.part(0..1).read().map(drop);
    Ok(2.0 * (n as f64).powi(3) / seconds(10, || products::forward(x.all(), w.all(), y.all(), n, false), wait)?)
}
