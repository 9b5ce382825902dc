//! `reckon watch`: a run that goes on, in the terminal. What is drawn is the crate `reckon_lab`'s.

use std::io::{IsTerminal, stdin, stdout};
use std::path::PathBuf;

use anyhow::{Result, ensure};
use reckon_lab::{run::Run, watch::watch};

/// Arguments of `reckon watch`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of the run.
    #[arg(default_value = "runs/countdown")]
    run: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<()> {
    Run::read(&args.run)?;
    ensure!(
        stdout().is_terminal() && stdin().is_terminal(),
        "reckon watch draws on a terminal, and this is none: `reckon report {} --text` prints the figures",
        args.run.display()
    );
    watch(&args.run)
}
