//! `reckon verify score`: a verdict a row. For verifiers that judge whole groups, a group is consecutive rows with the
//! same question.

use std::path::PathBuf;

use anyhow::Result;
use reckon_rewards::{Registry, Scope, Submission};
use serde_json::json;

use super::{VerifierArgs, read_rows};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    verifier: VerifierArgs,
    /// The file.
    file: PathBuf,
    /// Print a verdict a line, in order.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    let verifier = args.verifier.build(registry)?;
    let rows = read_rows(&args.file)?;
    let mut verdicts = Vec::with_capacity(rows.len());
    for batch in rows.chunk_by(|(a, _), (b, _)| verifier.scope() == Scope::Completion || a.question == b.question) {
        let batch: Vec<_> = batch.iter().map(|(example, completion)| Submission::new(example, completion)).collect();
        verdicts.extend(verifier.verify_batch(&batch)?);
    }
    if args.json {
        verdicts.iter().for_each(|verdict| println!("{}", json!(verdict)));
    } else {
        println!("{} of {} pass", verdicts.iter().filter(|v| v.passed()).count(), verdicts.len());
    }
    Ok(())
}
