//! `linear_logprob` on a device: the formulas of `mod.rs`, in chunks of rows so that logits and their
//! gradient never take more than `CHUNK_BYTES`, whatever the vocabulary.
#![allow(unsafe_code)] // each launch's lengths are checked before it

use std::ops::Range;

use anyhow::Result;
use half::bf16;

use crate::device::products::{backward_input, backward_weight, forward as product};
use crate::device::{Buffer, Class, Device, Launch, View};
use crate::linear::device::Weight;

/// Most memory that a chunk takes: its logits in fp32 and their gradient in bf16.
const CHUNK_BYTES: usize = 256 << 20;
/// Most rows of a chunk: more make no product faster.
const CHUNK_ROWS: usize = 1024;

/// Rows that a block of the library's products takes: a chunk of whole blocks leaves none of them part empty.
const BLOCK_ROWS: usize = 128;

/// Rows of a chunk for a vocabulary of `v`.
pub fn chunk_rows(v: usize) -> usize {
    let rows = (CHUNK_BYTES / (v * (size_of::<f32>() + size_of::<bf16>()))).clamp(1, CHUNK_ROWS);
    if rows < BLOCK_ROWS { rows } else { rows / BLOCK_ROWS * BLOCK_ROWS }
}

/// The ranges of the chunks of `count` rows.
pub fn chunks(v: usize, count: usize) -> impl Iterator<Item = Range<usize>> {
    let rows = chunk_rows(v);
    (0..count).step_by(rows).map(move |start| start..(start + rows).min(count))
}

/// Bytes that the chunks of `count` rows take: of one, which all use.
pub fn chunk_bytes(v: usize, count: usize) -> usize {
    chunk_rows(v).min(count) * v * (size_of::<f32>() + size_of::<bf16>())
}

/// Output matrix and temperature.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// `(V, K)`.
    pub w: Weight<'a>,
    /// Values in a row.
    pub k: usize,
    /// Divides the logits.
    pub temperature: f32,
}

impl Head<'_> {
    pub(super) fn columns(&self) -> usize {
        self.w.values.len() / self.k
    }
}

/// What chunks use again.
#[derive(Debug)]
pub struct Scratch {
    pub(super) logits: Buffer<f32>,
    pub(super) d_logits: Buffer<bf16>,
    logprobs: Buffer<f32>,
    entropies: Buffer<f32>,
    /// Of the rows of the latest forward.
    pub(super) lses: Buffer<f32>,
}

impl Scratch {
    /// Nothing yet; grows to what is asked.
    pub fn new(device: &Device) -> Result<Self> {
        let class = Class::Activations;
        let small = || device.buffer(class, 0);
        let (logits, d_logits) = (device.buffer(class, 0)?, device.buffer(class, 0)?);
        Ok(Self { logits, d_logits, logprobs: small()?, entropies: small()?, lses: small()? })
    }
}

/// `h (R, K)`, `targets (R)` -> log-probability and entropy of each row. Leaves the log-sum-exps for [`backward`].
pub fn forward(head: Head, h: View<bf16>, targets: View<u32>, scratch: &mut Scratch) -> Result<(Vec<f32>, Vec<f32>)> {
    let (count, v) = (targets.len(), head.columns());
    let lses = scratch.lses.sized(count)?;
    let (out, entropies) = (scratch.logprobs.sized(count)?, scratch.entropies.sized(count)?);
    let logits = scratch.logits.sized(chunk_rows(v).min(count) * v)?;
    for rows in chunks(v, count) {
        let values = logits.part(0..rows.len() * v);
        product(h.part(rows.start * head.k..rows.end * head.k), head.w.values, values, head.k, false)?;
        let logits = Logits { values, targets: targets.part(rows.clone()), temperature: head.temperature };
        logprobs(logits, out.part(rows.clone()), entropies.part(rows.clone()), lses.part(rows))?;
    }
    Ok((out.read()?, entropies.read()?))
}

/// Derivatives of what is minimised, by row.
#[derive(Clone, Copy)]
pub struct Slopes<'a> {
    /// (R) with respect to the log-probability of the target.
    pub logprobs: View<'a, f32>,
    /// (R) with respect to the entropy, where it has one.
    pub entropies: Option<View<'a, f32>>,
}

/// Slopes `(R)` -> `dh (R, K)` written, the gradient of the matrix added to if it is trained; after [`forward`] of the same rows.
pub fn backward(
    head: Head,
    h: View<bf16>,
    targets: View<u32>,
    slopes: Slopes,
    dh: View<bf16>,
    scratch: &mut Scratch,
) -> Result<()> {
    let (count, v) = (targets.len(), head.columns());
    let (lses, entropies) = (scratch.lses.sized(count)?, scratch.entropies.sized(count)?);
    let chunk = chunk_rows(v).min(count) * v;
    let (logits, d_logits) = (scratch.logits.sized(chunk)?, scratch.d_logits.sized(chunk)?);
    for rows in chunks(v, count) {
        let (values, dz) = (logits.part(0..rows.len() * v), d_logits.part(0..rows.len() * v));
        let places = rows.start * head.k..rows.end * head.k;
        product(h.part(places.clone()), head.w.values, values, head.k, false)?;
        let logits = Logits { values, targets: targets.part(rows.clone()), temperature: head.temperature };
        let lses = lses.part(rows.clone());
        match slopes.entropies {
            None => logprobs_backward(logits, lses, slopes.logprobs.part(rows), dz)?,
            Some(slope) => {
                let entropy = (entropies.part(rows.clone()), slope.part(rows.clone()));
                entropies_backward(logits, lses, slopes.logprobs.part(rows), entropy, dz)?;
            }
        }
        backward_input(dz, head.w.values, dh.part(places.clone()), head.k, false)?;
        if let Some(dw) = head.w.gradient {
            backward_weight(dz, h.part(places), dw, head.k)?;
        }
    }
    Ok(())
}

/// A chunk of logits with what is asked of it.
#[derive(Clone, Copy)]
struct Logits<'a> {
    /// `(R, V)`.
    values: View<'a, f32>,
    /// `(R)`; the caller has checked that each is a column.
    targets: View<'a, u32>,
    /// Divides the logits.
    temperature: f32,
}

impl Logits<'_> {
    fn launch(&self, kernel: &'static str) -> Launch {
        Launch::new(kernel, [self.targets.len(), 1, 1], 512).arg(self.values).arg(self.targets)
    }

    fn columns(&self) -> usize {
        self.values.len() / self.targets.len().max(1)
    }
}

/// Log-probability, entropy and log-sum-exp of each row.
fn logprobs(logits: Logits, logprobs: View<f32>, entropies: View<f32>, lses: View<f32>) -> Result<()> {
    let rows = logits.targets.len();
    assert_eq!((logprobs.len(), entropies.len(), lses.len()), (rows, rows, rows));
    let launch = logits.launch("logprob_forward").arg(logprobs).arg(entropies).arg(lses);
    // SAFETY: lengths are checked above.
    unsafe { lses.device().launch(&launch.arg(logits.columns() as u32).arg(logits.temperature)) }
}

/// `dlogprob (R)` -> `dz (R, V)`.
fn logprobs_backward(logits: Logits, lses: View<f32>, d_logprobs: View<f32>, dz: View<bf16>) -> Result<()> {
    let rows = logits.targets.len();
    assert_eq!((lses.len(), d_logprobs.len(), dz.len()), (rows, rows, logits.values.len()));
    let launch = logits.launch("logprob_backward").arg(lses).arg(d_logprobs).arg(dz);
    // SAFETY: lengths are checked above.
    unsafe { lses.device().launch(&launch.arg(logits.columns() as u32).arg(logits.temperature)) }
}

/// `dlogprob (R)`, entropy and its slope `(R)` -> `dz (R, V)`.
fn entropies_backward(
    logits: Logits,
    lses: View<f32>,
    d_logprobs: View<f32>,
    (entropies, d_entropies): (View<f32>, View<f32>),
    dz: View<bf16>,
) -> Result<()> {
    let rows = logits.targets.len();
    assert_eq!((lses.len(), d_logprobs.len(), dz.len()), (rows, rows, logits.values.len()));
    assert_eq!((entropies.len(), d_entropies.len()), (rows, rows));
    let launch = logits.launch("logprob_entropy_backward").arg(lses).arg(d_logprobs).arg(entropies).arg(d_entropies);
    // SAFETY: lengths are checked above.
    unsafe { lses.device().launch(&launch.arg(dz).arg(logits.columns() as u32).arg(logits.temperature)) }
}
