//! What a model with experts has of its routers wherever it is computed: a router's own choice beside that of sampling,
//! and biases of choices that move toward even loads. How a router chooses is left to [`crate::ops::experts`].

use std::cmp::Ordering;
use std::ops::Range;

use anyhow::{Result, ensure};

use super::layout::{ExpertsMlp, Layout, Mlp};
use crate::batch::RouterReplay;
use crate::ops::experts::{Load, Router, Routing};

/// Why a model with an adapter is not balanced.
pub(super) const FROZEN_BIASES: &str =
    "optim.balance moves the biases of routers, which an adapter leaves as they are: set it to 0";

/// The experts that rows went to when they were sampled.
pub(super) struct Sampled<'a> {
    /// `(T, A)`.
    pub(super) chosen: Vec<u32>,
    /// Whether they go there.
    pub(super) replay: RouterReplay,
    /// Whether the router's own choice was another one in some layer `(T)`.
    pub(super) differ: &'a mut [bool],
}

impl Sampled<'_> {
    /// Compares the router's own choice with it, and replaces it where it is replayed. The order of a row's experts
    /// is that of sampling, so that where both have the same scores their sums have the same bits.
    pub(super) fn meet(self, router: &Router, routing: &mut Routing) {
        let rows = routing.chosen.chunks_exact(router.active).zip(self.chosen.chunks_exact(router.active));
        for (differs, (own, sampled)) in self.differ.iter_mut().zip(rows) {
            *differs |= own.iter().any(|expert| !sampled.contains(expert));
        }
        if self.replay == RouterReplay::Rollout {
            router.replay(&self.chosen, routing);
        }
    }
}

/// Where the biases of the choice of each layer lie; nothing for a layer without.
pub(super) fn choice_biases(layout: &Layout) -> impl Iterator<Item = Option<&Range<usize>>> {
    layout.layers.iter().map(|layer| match &layer.mlp {
        Mlp::Experts(ExpertsMlp { bias: Some(place), .. }) => Some(&place.range),
        Mlp::Experts(_) | Mlp::Dense(_) => None,
    })
}

/// The layers whose routers can be balanced, and where their biases lie.
///
/// # Errors
/// If there is none.
pub(super) fn balanced_layers(layout: &Layout) -> Result<Vec<(usize, &Range<usize>)>> {
    let biases: Vec<_> = choice_biases(layout).enumerate().filter_map(|(layer, place)| Some((layer, place?))).collect();
    ensure!(
        !biases.is_empty(),
        "optim.balance is for routers whose choice has a bias, and this model has none: set it to 0"
    );
    Ok(biases)
}

/// Moves the bias of each expert by `step`: up where it had fewer rows than the mean of its layer, down where it had
/// more (Wang et al. 2024, arXiv:2408.15664). It has no gradient, and the optimizer leaves it alone.
pub(super) fn even_out(biases: &mut [f32], load: &Load, step: f32) {
    let (sum, count) = (load.rows.iter().sum::<u64>(), load.rows.len() as u64);
    for (bias, rows) in biases.iter_mut().zip(&load.rows) {
        match (rows * count).cmp(&sum) {
            Ordering::Less => *bias += step,
            Ordering::Equal => {}
            Ordering::Greater => *bias -= step,
        }
    }
}
