//! `reckon completions`: a script that lets a shell complete the command line.

use anyhow::Result;
use clap::CommandFactory;

use super::Cli;
use crate::output::print;

/// Arguments of `reckon completions`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which shell: `reckon completions bash > /etc/bash_completion.d/reckon`, and alike for others.
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "reckon", &mut script);
    print(format_args!("{}", String::from_utf8_lossy(&script)))
}
