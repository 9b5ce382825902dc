//! How a test fails, in words and as an outcome.

use crate::Outcome;
use crate::sandbox::{End, Limits, Run};

/// How a test failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) outcome: Outcome,
    pub(crate) reason: String,
}

impl Failure {
    /// Understood, and wrong.
    pub(crate) fn wrong(reason: impl Into<String>) -> Self {
        Self { outcome: Outcome::Fail, reason: reason.into() }
    }

    /// Whether a run did not end well.
    pub(crate) fn of(run: &Run, limits: Limits) -> Option<Self> {
        let (outcome, reason) = match run.end {
            End::Exited(0) => return None,
            End::Exited(status) => (Outcome::Crash, format!("exit status {status}: {}", last_line(&run.stderr))),
            End::Signaled(signal) => (Outcome::Crash, format!("killed by signal {signal}")),
            End::TimedOut => (Outcome::Timeout, "out of time".into()),
            End::TooMuchOutput => (Outcome::Fail, format!("more than {} KiB of output", limits.output_kb)),
        };
        Some(Self { outcome, reason: reason.trim_end_matches(": ").into() })
    }
}

/// The last line of a program's errors, short and without control characters: `NameError: name 'x' is not defined`.
pub(crate) fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.trim_end().lines().next_back().unwrap_or("");
    line.chars().filter(|c| !c.is_control()).take(120).collect()
}
