//! SIGINT and SIGTERM as a flag that a long command looks at between steps: it finishes the step, saves, and ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

use crate::output::note;

/// A flag that the first SIGINT or SIGTERM sets.
pub(super) fn stop_flag() -> Result<Arc<AtomicBool>> {
    stop_flag_of(true)
}

/// The same of one of several ranks, of which the first speaks.
pub(super) fn stop_flag_of(speaks: bool) -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let seen = flag.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            if speaks {
                note!("finishing the step, then saving");
            }
            seen.store(true, Ordering::Relaxed);
        });
    })?;
    Ok(flag)
}
