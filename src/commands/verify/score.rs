//! `reckon verify score`: one verdict for each row.

use crate::output::say;
use std::path::PathBuf;

use anyhow::Result;
use reckon_rewards::Registry;
use serde_json::json;

use super::{VerifierArgs, read_rows, verdicts};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    verifier: VerifierArgs,
    /// The file.
    file: PathBuf,
    /// Print one verdict in each line, in order.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    let verifier = args.verifier.build(registry)?;
    let verdicts = verdicts(&*verifier, &read_rows(&args.file)?)?;
    if args.json {
        verdicts.iter().try_for_each(|verdict| say!("{}", json!(verdict)))?;
    } else {
        let judged: Vec<_> = verdicts.iter().filter(|verdict| verdict.outcome.is_judged()).collect();
        let passed = judged.iter().filter(|verdict| verdict.passed()).count();
        let left_out = match verdicts.len() - judged.len() {
            0 => String::new(),
            left_out => format!(", {left_out} were not judged"),
        };
        say!("{passed} of {} pass{left_out}", judged.len())?;
    }
    Ok(())
}
