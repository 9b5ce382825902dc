//! `bench-device`: opens a card, and prints what the library measures there.
#![allow(clippy::print_stdout)]

use anyhow::Result;
use clap::Parser;
use reckon::ops::device::cuda;
use reckon_bench::{Args, gib, measured};
use serde_json::{Value, json};

/// Speed and memory of sampling and of the update on a CUDA card.
#[derive(Debug, Parser)]
#[command(name = "bench-device", version)]
struct Cli {
    /// Which card.
    #[arg(long, default_value_t = 0)]
    card: usize,
    #[command(flatten)]
    args: Args,
    /// Print one JSON object on one line.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let Cli { card: index, args, json } = Cli::parse();
    let card = cuda::card(index)?;
    let device = cuda::open(index)?;
    let mut report = measured(&args, &device)?;
    let in_use = device.in_use()?.saturating_sub(card.total - card.free);
    report.insert("card".into(), json!(card.name));
    report.insert("capability".into(), json!(format!("{}.{}", card.capability.0, card.capability.1)));
    // With the libraries' own, and what the pool keeps of all that was ever asked for at a time.
    report.insert("gib_taken_from_the_card".into(), json!(gib(in_use)));
    let report = Value::Object(report);
    println!("{}", if json { report.to_string() } else { serde_json::to_string_pretty(&report)? });
    Ok(())
}
