//! `reckon verify test`: cases with the rewards that they should get.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use reckon_rewards::Registry;

use super::{VerifierArgs, read_rows, verdicts};

/// Rewards that are closer than this are the same: they went through decimal texts and single precision.
const TOLERANCE: f64 = 1e-6;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    verifier: VerifierArgs,
    /// A JSON Lines file of `{"answer": reference, "completion": text, "reward": expected, ...}`.
    file: PathBuf,
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    let verifier = args.verifier.build(registry)?;
    let mut rows = read_rows(&args.file)?;
    let mut expected = Vec::with_capacity(rows.len());
    for (example, _) in &mut rows {
        let reward = example.info.shift_remove("reward").as_ref().and_then(serde_json::Value::as_f64);
        let place = || format!("{}, {}: no number in column \"reward\"", args.file.display(), example.id);
        expected.push(reward.with_context(place)?);
    }
    let mut failed = 0;
    for (((example, _), expected), verdict) in rows.iter().zip(expected).zip(verdicts(&*verifier, &rows)?) {
        let verdict = verdict?;
        if (f64::from(verdict.reward) - expected).abs() > TOLERANCE {
            failed += 1;
            let (outcome, reason) = (verdict.outcome, verdict.reason);
            println!("{}: expected {expected}, got {} ({outcome:?}: {reason})", example.id, verdict.reward);
        }
    }
    if failed > 0 {
        bail!("{failed} of {} cases fail", rows.len());
    }
    println!("all {} cases pass", rows.len());
    Ok(())
}
