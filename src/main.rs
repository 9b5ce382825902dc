//! The `reckon` binary: the command line with the verifiers of this workspace and no others.

use std::process::ExitCode;

/// Blocks freed by one micro-batch serve the next without the kernel clearing pages again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    reckon::commands::main(&reckon_rewards::Registry::default())
}
