//! What delta nets on a device go through, and the buffers that they are computed in; what is computed is in
//! [`super::delta`].

use anyhow::Result;
use half::bf16;

use crate::ops::delta::{Delta, device as delta};
use crate::ops::device::{Buffer, Class, Device};

/// What delta nets go through: sequences, and the states that they go on from where these are kept.
#[derive(Clone, Copy)]
pub(super) struct Memory<'a> {
    pub(super) sequences: &'a delta::Sequences,
    pub(super) states: Option<&'a delta::States>,
}

/// What delta nets take in, of the layer at hand. `(T, ..)` each, empty where no layer is one.
#[derive(Debug)]
pub(super) struct DeltaInputs {
    pub(super) rows: Buffer<f32>,
    pub(super) gates: Buffer<f32>,
    /// Factors of the norms of outputs.
    pub(super) factors: Buffer<f32>,
}

impl DeltaInputs {
    pub(super) fn new(device: &Device, class: Class, sizes: Option<Delta>, t: usize) -> Result<Self> {
        let room = |width: fn(Delta) -> usize| device.buffer(class, t * sizes.map_or(0, width));
        Ok(Self { rows: room(|s| s.channels())?, gates: room(|s| s.gates())?, factors: room(|s| s.value_heads)? })
    }
}

/// What their backward works in.
#[derive(Debug)]
pub(super) struct DeltaGradients {
    /// Outputs, each normed, their gates not yet multiplied.
    pub(super) normed: Buffer<bf16>,
    pub(super) errors: Buffer<f32>,
    pub(super) gradients: Buffer<f32>,
    pub(super) gates: Buffer<f32>,
}

impl DeltaGradients {
    pub(super) fn new(device: &Device, sizes: Option<Delta>, t: usize) -> Result<Self> {
        let len = |width: fn(Delta) -> usize| t * sizes.map_or(0, width);
        let room = |width| device.buffer(Class::Activations, len(width));
        Ok(Self {
            normed: device.buffer(Class::Activations, len(|s| s.outputs()))?,
            errors: room(|s| s.outputs())?,
            gradients: room(delta::gradients)?,
            gates: room(|s| s.gates())?,
        })
    }
}
