//! `reckon verify test`: cases with the rewards that they should get.

use crate::output::say;
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
    /// A JSON Lines file of `{"answer": reference, "completion": text, "reward": expected, ...}`; null expects no verdict.
    file: PathBuf,
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    let rubric = args.verifier.build(registry)?;
    let mut rows = read_rows(&args.file)?;
    let mut expected = Vec::with_capacity(rows.len());
    for (example, _) in &mut rows {
        let place = || format!("{}, {}: no number or null in column \"reward\"", args.file.display(), example.id);
        expected.push(match example.info.shift_remove("reward") {
            Some(serde_json::Value::Null) => None,
            reward => Some(reward.as_ref().and_then(serde_json::Value::as_f64).with_context(place)?),
        });
    }
    let mut failed = 0;
    for (((example, _), expected), verdict) in rows.iter().zip(expected).zip(verdicts(&rubric, &rows)?) {
        let verdict = verdict?;
        let judged = verdict.judged().map(f64::from);
        let equal = match (judged, expected) {
            (Some(judged), Some(expected)) => (judged - expected).abs() <= TOLERANCE,
            (judged, expected) => judged == expected,
        };
        if !equal {
            failed += 1;
            let [expected, got] = [expected, judged].map(|reward| reward.map_or("null".into(), |r| r.to_string()));
            let (id, outcome, reason) = (&example.id, verdict.outcome, &verdict.reason);
            say!("{id}: expected {expected}, got {got} ({outcome:?}: {reason})")?;
        }
    }
    if failed > 0 {
        bail!("{failed} of {} cases fail", rows.len());
    }
    say!("all {} cases pass", rows.len())?;
    Ok(())
}
