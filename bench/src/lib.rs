//! What `bench-device` measures: speed and memory of a CUDA card at the shapes of real models, with random weights, beside
//! the card's own rate of matrix products and beside what `reckon plan` says. Each measurement is a file and takes any
//! [`Device`], so that the tests run it without a card; opening one is left to the binary.

mod attention;
mod growth;
mod products;
mod sampling;
mod shape;
mod timing;
mod update;
mod vocabulary;

use anyhow::{Result, ensure};
use reckon::ops::device::Device;
use reckon::progress::Bar;
use serde_json::{Map, Value};

pub use shape::Shape;

/// What to measure, and how much of it.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What to measure, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "products,attention,vocabulary,update")]
    pub measure: Vec<Measure>,
    /// Shape of the model.
    #[arg(long, value_enum, default_value = "qwen3-0.6b")]
    pub shape: Shape,
    /// Train an adapter of this rank on a frozen base, in place of all weights.
    #[arg(long, value_name = "RANK")]
    pub lora: Option<usize>,
    /// Compute layers again in the backward instead of keeping them.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub recompute: bool,
    /// Keep the optimizer's moments in eight bits.
    #[arg(long)]
    pub eight_bit: bool,
    /// Packed tokens of a micro-batch, in one sequence.
    #[arg(long, default_value_t = 16384)]
    pub tokens: usize,
    /// Updates to time, after one that is not; `growth` makes as many and compares memory with that after the tenth.
    #[arg(long, default_value_t = 5)]
    pub updates: usize,
    /// Completions sampled at a time, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "64,256")]
    pub rows: Vec<usize>,
    /// New tokens of each completion.
    #[arg(long, default_value_t = 256)]
    pub new: usize,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Measure {
    /// Rate of a large matrix product.
    Products,
    /// Attention forward and backward over one sequence.
    Attention,
    /// Memory that a vocabulary takes beside its weights.
    Vocabulary,
    /// Speed and memory of an update.
    Update,
    /// Speed and memory of sampling.
    Sampling,
    /// Memory after many updates against memory after ten.
    Growth,
}

/// Everything that `args` ask for, by name.
pub fn measured(args: &Args, device: &Device) -> Result<Map<String, Value>> {
    ensure!(args.tokens > 0 && args.updates > 0, "--tokens and --updates are at least 1");
    let bar = Bar::new(args.measure.len() as u64, "bench-device");
    let mut report = Map::new();
    for (index, &measure) in args.measure.iter().enumerate() {
        bar.tick(index as u64, &format!("{measure:?}"), "");
        let (name, value) = match measure {
            Measure::Products => ("products", products::measure(device, args.shape.product())?),
            Measure::Attention => ("attention", attention::measure(device, args.shape.heads(), args.tokens)?),
            Measure::Vocabulary => ("vocabulary", vocabulary::measure(device, &args.shape.config(args.tokens)?)?),
            Measure::Update => ("update", update::measure(device, args)?),
            Measure::Sampling => ("sampling", sampling::measure(device, args)?),
            Measure::Growth => ("growth", growth::measure(device, args)?),
        };
        report.insert(name.into(), value);
    }
    bar.finish("bench-device: done");
    Ok(report)
}

/// Bytes in GiB.
pub fn gib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
