//! What the experts of a run on a device keep: on the host what routers are told, choose and leave to be counted, on the
//! device what a layer's backward needs beside its activations.

use std::cell::RefCell;

use anyhow::Result;
use half::bf16;

use crate::batch::{RoutedExperts, RouterReplay};
use crate::model::Decoder;
use crate::model::layout::{LayerLayout, Mlp};
use crate::ops::device::{Buffer, Class, Device};
use crate::ops::experts::{Dispatch, Load, LoadBalance, Routing};

/// Values a token that a layer's feed-forward part takes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Widths {
    /// Activations, of all experts of a token; gate and up are twice as wide.
    pub(super) activated: usize,
    /// Experts of a token.
    pub(super) active: usize,
    /// All experts.
    pub(super) experts: usize,
    /// Activations of the expert of all tokens.
    pub(super) shared: usize,
}

impl Widths {
    /// Those of a layer.
    pub(super) fn of(layer: &LayerLayout, decoder: &Decoder) -> Self {
        match (&layer.mlp, &decoder.router) {
            (Mlp::Experts(mlp), Some(router)) => Self {
                activated: router.active * mlp.experts[0].down.inputs,
                active: router.active,
                experts: router.experts,
                shared: mlp.shared.as_ref().map_or(0, |shared| shared.mlp.down.inputs),
            },
            _ => Self { activated: decoder.intermediate, ..Self::default() },
        }
    }

    /// What either takes.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            activated: self.activated.max(other.activated),
            active: self.active.max(other.active),
            experts: self.experts.max(other.experts),
            shared: self.shared.max(other.shared),
        }
    }
}

/// What the routers of a run are told, and what is noted of them.
#[derive(Debug, Default)]
pub(super) struct Routers<'a> {
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

impl<'a> Routers<'a> {
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
    pub(super) fn new(device: &Device, class: Class, widths: Widths, t: usize) -> Result<Self> {
        let Widths { active, shared, .. } = widths;
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
