//! What the experts of a run on a device keep: on the host what routers are told, choose and leave to be counted, on the
//! device what a layer's backward needs beside its activations.

use std::cell::RefCell;

use anyhow::Result;
use half::bf16;

use super::widths::MlpWidths;
use crate::batch::{RoutedExperts, RouterReplay};
use crate::ops::device::{Buffer, Class, Device};
use crate::ops::experts::{Dispatch, Load, LoadBalance, Routing};

/// What the routers of a run are told, and what is noted of them.
#[derive(Debug, Default)]
pub(super) struct RouterRecord<'a> {
    /// The experts that tokens went to when they were sampled, and whether they go there.
    pub(super) recorded: Option<(&'a RoutedExperts, RouterReplay)>,
    pub(super) notes: RefCell<Notes>,
}

/// What is noted of the routers of a run.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Whether an input went to other experts when it was sampled `(T)`.
    pub(super) differ: Vec<bool>,
    /// What all tokens chose, where that is recorded.
    pub(super) routed: Option<RoutedExperts>,
    /// What an auxiliary loss is made of, where it is asked for.
    pub(super) balance: Option<LoadBalance>,
    /// What the routers of the layers chose, noted by a backward.
    pub(super) choices: Vec<Load>,
}

impl<'a> RouterRecord<'a> {
    /// Those of `tokens` inputs that were sampled as `recorded` says.
    pub(super) fn of(recorded: Option<(&'a RoutedExperts, RouterReplay)>, tokens: usize) -> Self {
        let differ = if recorded.is_some() { vec![false; tokens] } else { Vec::new() };
        Self { recorded, notes: RefCell::new(Notes { differ, ..Notes::default() }) }
    }
}

/// What a layer keeps of its experts beside their activations.
#[derive(Debug)]
pub(super) struct ExpertActivations {
    /// What its router chose, on the host.
    pub(super) routes: RefCell<Routes>,
    /// The row at each place `(T A)`, the place of each choice `(T, A)`, and the weight at each place.
    pub(super) rows: Buffer<u32>,
    pub(super) places: Buffer<u32>,
    pub(super) weights: Buffer<f32>,
    /// Gate and up `(T, 2F)`, activations `(T, F)` and gates `(T)` of the expert of all tokens.
    pub(super) shared_gate_up: Buffer<bf16>,
    pub(super) shared_activated: Buffer<bf16>,
    pub(super) shared_gates: Buffer<f32>,
}

/// A router's choice for all rows.
#[derive(Debug, Default)]
pub(super) struct Routes {
    pub(super) routing: Routing,
    pub(super) dispatch: Dispatch,
}

impl ExpertActivations {
    /// Room for `t` rows.
    pub(super) fn new(device: &Device, class: Class, widths: MlpWidths, t: usize) -> Result<Self> {
        let MlpWidths { active, shared, .. } = widths;
        Ok(Self {
            routes: RefCell::default(),
            rows: device.buffer(class, t * active)?,
            places: device.buffer(class, t * active)?,
            weights: device.buffer(class, t * active)?,
            shared_gate_up: device.buffer(class, t * 2 * shared)?,
            shared_activated: device.buffer(class, t * shared)?,
            shared_gates: device.buffer(class, if shared > 0 { t } else { 0 })?,
        })
    }
}
