//! The `[compute]` table: where a run computes, and how much at a time. Opening a card is left to `commands/compute.rs`.

use reckon_datasets::table;
use serde::{Deserialize, Serialize};

use crate::model::Sharing;
use crate::ops::linear::Precision;
use crate::parallel::default_threads;

/// Where a run computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// fp32, a micro-batch per thread; the buffers of sampling and of updating stay for the next step.
    Cpu,
    /// bf16 with fp32 master weights, one micro-batch at a time; sampling and updating share one budget.
    Cuda,
}

/// The words of `compute.device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChoice {
    /// A card if this binary and this machine have one, or else the processor.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The first card that `CUDA_VISIBLE_DEVICES` leaves; one for each rank of a machine.
    Cuda,
}

impl DeviceChoice {
    /// The choice on this machine.
    pub fn target(self) -> Target {
        match self {
            Self::Cpu => Target::Cpu,
            Self::Cuda => Target::Cuda,
            Self::Auto if has_card() => Target::Cuda,
            Self::Auto => Target::Cpu,
        }
    }
}

#[cfg(feature = "cuda")]
fn has_card() -> bool {
    crate::ops::device::cuda::card(0).is_ok_and(|card| card.capability.0 >= 8)
}

#[cfg(not(feature = "cuda"))]
fn has_card() -> bool {
    false
}

/// The words of `compute.precision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum PrecisionChoice {
    /// Products of fp32 operands.
    #[default]
    Fp32,
    /// Products of operands rounded to bf16; sums and all else stay fp32.
    Bf16,
}

impl PrecisionChoice {
    /// Bytes of an operand.
    pub fn bytes(self) -> usize {
        match self {
            Self::Fp32 => 4,
            Self::Bf16 => 2,
        }
    }
}

impl From<PrecisionChoice> for Precision {
    fn from(choice: PrecisionChoice) -> Self {
        match choice {
            PrecisionChoice::Fp32 => Self::Fp32,
            PrecisionChoice::Bf16 => Self::Bf16,
        }
    }
}

table! {
    /// What is computed how. `device`, `precision`, `micro_batch_tokens` and `gradient_parts` change the rounding of a result,
    /// nothing else here changes any.
    pub struct ComputeConfig {
        /// `auto` is a CUDA card if this binary and this machine have one, or else the CPU. A run keeps what it began with.
        pub device: DeviceChoice = DeviceChoice::Auto,
        /// What a CPU multiplies: `bf16` is several times as fast where the processor has a unit for it (`reckon doctor`
        /// says which); master weights, sums, gradients and moments are fp32 all the same. A card always takes bf16.
        pub precision: PrecisionChoice = PrecisionChoice::Fp32,
        /// Threads; 0 takes one per core.
        pub threads: usize = 0,
        /// Most tokens of a micro-batch; 0 takes what is fast: on a CPU 512, or 256 beside the large frozen base of an
        /// adapter, and 16384 on a card.
        pub micro_batch_tokens: usize = 0,
        /// Compute layers again in the backward instead of keeping their activations.
        pub recompute: bool = false,
        /// Parts in which a CPU computes the gradient of a model of more than four million weights, to be added in their
        /// order; 0 for one on each rank. Runs of the same number have the same bits on as many ranks, or fewer. Smaller
        /// models have them anyway.
        pub gradient_parts: usize = 0,
    }
}

impl ComputeConfig {
    /// Where to compute on this machine.
    pub fn target(&self) -> Target {
        self.device.target()
    }

    /// Threads to use on this machine.
    pub fn threads(&self) -> usize {
        if self.threads == 0 { default_threads() } else { self.threads }
    }

    /// Puts what this machine has in place of `auto`.
    pub fn resolve(&mut self) {
        self.device = match self.target() {
            Target::Cpu => DeviceChoice::Cpu,
            Target::Cuda => DeviceChoice::Cuda,
        };
    }

    /// Puts what suits a model of so many weights, all trained or the frozen base of an adapter, in place of 0 tokens.
    pub fn suit(&mut self, weights: usize, frozen: bool) {
        if self.micro_batch_tokens == 0 {
            self.micro_batch_tokens = match self.target() {
                Target::Cpu => Sharing::of(weights).micro_batch_tokens(frozen),
                Target::Cuda => 16_384,
            };
        }
    }
}
