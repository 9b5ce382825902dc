//! AdamW over the flat weights, clipping by global norm, and schedules of the learning rate. Several ranks have a share
//! of the moments each, and move the weights of that share.

mod cpu;
mod device;
mod schedule;
mod sharded;

pub use cpu::AdamW;
pub use device::DeviceAdamW;
pub use schedule::{Schedule, ScheduleKind};

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::model::Entry;
use crate::ops::adamw::{MOMENT_BLOCK, Step};
use crate::ranks::overlap;
use crate::tensor::Tensor;

/// Settings of AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the square root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay, on matrices only.
    pub weight_decay: f32,
    /// Gradients are scaled down to this global norm; 0 leaves them.
    pub max_grad_norm: f32,
}

impl AdamWConfig {
    /// What update `count` does to weights that decay or do not, where the whole gradient has the norm `grad_norm`.
    fn step(&self, lr: f64, grad_norm: f64, decays: bool, count: u64) -> Step {
        let limit = f64::from(self.max_grad_norm);
        let scale = if limit > 0.0 && grad_norm > limit { limit / grad_norm } else { 1.0 };
        let weight_decay = if decays { self.weight_decay } else { 0.0 };
        let Self { beta1, beta2, eps, .. } = *self;
        Step { lr: lr as f32, beta1, beta2, eps, weight_decay, scale: scale as f32, count }
    }
}

/// How moments are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum MomentKind {
    /// Four bytes each.
    #[default]
    Full,
    /// A byte each, with a largest magnitude for every 256: a quarter of the memory.
    EightBit,
}

impl MomentKind {
    /// Bytes of both moments of so many weights.
    pub fn bytes(self, weights: usize) -> usize {
        match self {
            Self::Full => 8 * weights,
            Self::EightBit => 2 * weights + 8 * weights.div_ceil(MOMENT_BLOCK),
        }
    }
}

/// Weights side by side that decay alike, and where their blocks' largest moments lie.
#[derive(Debug, Clone, PartialEq)]
struct Stretch {
    range: Range<usize>,
    decays: bool,
    blocks: Range<usize>,
}

impl Stretch {
    /// What of it lies in a share.
    fn within(&self, share: &Range<usize>) -> Option<Self> {
        let range = overlap(&self.range, share);
        let skipped = range.start.checked_sub(self.range.start).filter(|_| !range.is_empty())?;
        let first = self.blocks.start + skipped / MOMENT_BLOCK;
        Some(Self { blocks: first..first + range.len().div_ceil(MOMENT_BLOCK), range, decays: self.decays })
    }
}

fn stretches(entries: &[Entry]) -> Vec<Stretch> {
    let mut all: Vec<Stretch> = Vec::new();
    for entry in entries {
        match all.last_mut() {
            Some(last) if last.decays == entry.is_matrix() => last.range.end = entry.range.end,
            _ => all.push(Stretch { range: entry.range.clone(), decays: entry.is_matrix(), blocks: 0..0 }),
        }
    }
    let mut next = 0;
    for stretch in &mut all {
        stretch.blocks = next..next + stretch.range.len().div_ceil(MOMENT_BLOCK);
        next = stretch.blocks.end;
    }
    all
}

/// Which of the trained values each of `size` ranks moves: about as many on all, and no block of moments is cut.
pub fn shares(entries: &[Entry], size: usize) -> Vec<Range<usize>> {
    let stretches = stretches(entries);
    let len = stretches.last().map_or(0, |last| last.range.end);
    let cut = |rank: usize| {
        let even = len * rank / size;
        let cut = |stretch: &Stretch| even - (even - stretch.range.start) % MOMENT_BLOCK;
        stretches.iter().find(|stretch| stretch.range.contains(&even)).map_or(len, cut)
    };
    (0..size).map(|rank| cut(rank)..cut(rank + 1)).collect()
}

/// What a checkpoint needs of an optimizer, wherever its moments are.
pub trait Optimizer {
    /// Updates made.
    fn count(&self) -> u64;

    /// Sets it to that of a checkpoint.
    fn set_count(&mut self, count: u64);

    /// Its moments by name, each kept as it is.
    fn tensors(&self) -> Vec<(&'static str, &dyn Tensor)>;

    /// The same, to be replaced.
    fn tensors_mut(&mut self) -> Vec<(&'static str, &mut dyn Tensor)>;
}

/// What became of an update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Update {
    /// The weights moved; the global norm of the gradient before clipping.
    Applied {
        /// Norm before clipping.
        grad_norm: f64,
    },
    /// Loss or gradient was not finite; the weights stayed.
    Skipped,
    /// There was nothing to learn from; the weights stayed.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_about_equal_and_cut_no_block_of_moments() {
        let entry = |range: Range<usize>, matrix: bool| Entry {
            name: String::new(),
            shape: if matrix { vec![1, range.len()] } else { vec![range.len()] },
            range,
        };
        let entries =
            [entry(0..1000, true), entry(1000..1100, false), entry(1100..1164, false), entry(1164..3000, true)];
        for cuts in [&[0, 3000][..], &[0, 1420, 3000], &[0, 1000, 1932, 3000], &[0, 512, 1420, 2188, 3000]] {
            let (size, shares) = (cuts.len() - 1, shares(&entries, cuts.len() - 1));
            let expected: Vec<_> = cuts.windows(2).map(|cut| cut[0]..cut[1]).collect();
            assert_eq!(shares, expected, "{size} ranks");
            let blocks = |share: &Range<usize>| {
                stretches(&entries).iter().filter_map(|stretch| stretch.within(share)).map(|part| part.blocks).collect()
            };
            let all: Vec<Range<usize>> =
                shares.iter().flat_map(|share| -> Vec<Range<usize>> { blocks(share) }).collect();
            assert!(all.windows(2).all(|next| next[0].end == next[1].start), "{all:?}: each block is one rank's");
            assert_eq!((all[0].start, all[all.len() - 1].end), (0, 4 + 1 + 8), "{size} ranks");
        }
        let few: Vec<usize> = shares(&entries[..1], 64).iter().map(Range::len).collect();
        assert_eq!((few.iter().sum::<usize>(), few.iter().filter(|len| **len > 0).count()), (1000, 4), "{few:?}");
        assert_eq!(shares(&[], 2), [0..0, 0..0]);
    }
}
