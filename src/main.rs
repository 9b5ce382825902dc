//! Parse, run, print the error chain, exit code: 0 success, 1 failure, 2 usage (clap's).

use std::process::ExitCode;

use clap::Parser;

/// Blocks freed by one micro-batch serve the next without the kernel clearing pages again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match reckon::commands::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            error.chain().skip(1).for_each(|cause| eprintln!("  because: {cause}"));
            ExitCode::FAILURE
        }
    }
}
