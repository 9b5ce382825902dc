//! Where a run computes, as `compute.device` says: this machine's processor, or its card with a clear word where there is
//! none.

use anyhow::Result;

use super::memory::{self, gib};
use crate::config::{ComputeConfig, LoraConfig, PrecisionChoice, Target};
use crate::ops::bf16::Unit;
use crate::ranks::Ranks;

#[cfg(feature = "cuda")]
pub(super) use card::{describe, nccl, open};
#[cfg(not(feature = "cuda"))]
pub(super) use no_card::{describe, nccl, open};

/// Bytes that one of the ranks may take there, as far as the system tells.
pub(super) fn memory(target: Target, ranks: &Ranks) -> Result<Option<usize>> {
    match target {
        Target::Cpu => Ok(memory::of_this_machine().map(|bytes| bytes / ranks.local_size())),
        #[cfg(feature = "cuda")]
        Target::Cuda => card::free(ranks).map(Some),
        #[cfg(not(feature = "cuda"))]
        Target::Cuda => Ok(None),
    }
}

/// What a run computes on, for people.
pub(super) fn place(compute: &ComputeConfig) -> String {
    match compute.target() {
        Target::Cpu => {
            let unit = match compute.precision {
                PrecisionChoice::Fp32 => String::new(),
                PrecisionChoice::Bf16 => format!(", bf16 by {}", Unit::of_this_machine().name()),
            };
            format!("cpu      {} threads, {}{unit}", compute.threads(), crate::ops::instruction_set())
        }
        Target::Cuda => format!("card     {}", describe()),
    }
}

/// How the cards of ranks add up gradients, for people; nothing where processors do.
pub(super) fn between(compute: &ComputeConfig, ranks: &Ranks) -> Option<String> {
    (ranks.size() > 1 && compute.target() == Target::Cuda).then(|| format!("nccl     {}", nccl()))
}

/// What becomes of the frozen base of an adapter where that is not what its file has, for people: a line each. As it is read
/// it takes `bytes` for so many weights.
pub(super) fn base(lora: &LoraConfig, compute: &ComputeConfig, bytes: usize, weights: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let tiles = 2 * weights;
    if compute.target() == Target::Cpu && compute.precision == PrecisionChoice::Bf16 && bytes < tiles {
        let (blocks, tiles) = (gib(bytes), gib(tiles));
        lines.push(format!(
            "base     {blocks} of blocks become {tiles} of bf16: compute.precision = \"fp32\" keeps them"
        ));
    }
    if lora.base.is_some() {
        lines.push(
            "base     kept as lora.base says; `reckon export` merges with the base as its file has it".to_owned(),
        );
    }
    lines
}

#[cfg(feature = "cuda")]
mod card {
    use anyhow::{Context, Result};

    use crate::ops::device::{Device, cuda, nccl};
    use crate::ranks::Ranks;

    /// The card that a process alone computes on: the first that `CUDA_VISIBLE_DEVICES` leaves.
    const CARD: usize = 0;

    /// A rank's card, of those that `CUDA_VISIBLE_DEVICES` leaves: that of its number on its machine. Where a launcher
    /// shows each rank a card of its own, there is one.
    fn card_of(ranks: &Ranks) -> Result<usize> {
        Ok(ranks.local_rank() % cuda::count()?.max(1))
    }

    /// A rank's card, ready to compute.
    pub(crate) fn open(ranks: &Ranks) -> Result<Device> {
        card_of(ranks).and_then(cuda::open).context(
            "there is no card to compute on: `reckon doctor` tells what is missing, and compute.device = \"cpu\" needs none",
        )
    }

    /// Bytes that are free on it.
    pub(super) fn free(ranks: &Ranks) -> Result<usize> {
        let card = card_of(ranks).and_then(cuda::card).context("the card does not tell how much memory is free")?;
        Ok(card.free)
    }

    /// The NCCL by which cards of several ranks work together.
    pub(crate) fn nccl() -> String {
        match nccl::version() {
            Ok(Some((major, minor, patch))) => format!("{major}.{minor}.{patch}"),
            Err(error) => format!("does not answer: {error:#}"),
            Ok(None) => {
                "not found, so cards of several ranks add up by way of their hosts: install libnccl-dev, or link \
                     libnccl.so.2 of the Python package nvidia-nccl as libnccl.so into a folder of LD_LIBRARY_PATH"
                    .to_owned()
            }
        }
    }

    /// The card, or what to do about its lack.
    pub(crate) fn describe() -> String {
        let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
        match cuda::card(CARD) {
            Ok(card) => {
                let (major, minor) = card.capability;
                let lack = if major < 8 { ": too old, kernels need 8.0 or higher" } else { "" };
                let (free, total) = (gib(card.free), gib(card.total));
                format!("{}, compute capability {major}.{minor}{lack}, {free:.1} of {total:.1} GiB free", card.name)
            }
            Err(error) => format!("none can be used ({error}): check nvidia-smi and CUDA_VISIBLE_DEVICES"),
        }
    }
}

#[cfg(not(feature = "cuda"))]
mod no_card {
    use anyhow::{Result, bail};

    use crate::ops::device::Device;
    use crate::ranks::Ranks;

    /// There is no card to a binary without the feature.
    pub(crate) fn open(_: &Ranks) -> Result<Device> {
        bail!(
            "this binary computes on a CPU alone: for compute.device = \"cuda\" build one with \
             `cargo build --release --features cuda` (docs/gpu.md)"
        )
    }

    /// What to do about that.
    pub(crate) fn describe() -> String {
        "not in this binary: build it with cargo build --release --features cuda (docs/gpu.md)".into()
    }

    /// The same of NCCL.
    pub(crate) fn nccl() -> String {
        describe()
    }
}
