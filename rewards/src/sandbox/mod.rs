//! Runs programs that nobody trusts: what a [`Level`] stands for, which levels this machine has, and the [`Run`] that
//! comes out. Knows nothing of verdicts; [`crate::Code`] judges what a program printed.
//!
//! A process of our own, the helper, restricts itself and then becomes the program; the process that judges is never
//! forked. So the program that links this crate calls [`helper`] as its first act:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     if let Some(code) = reckon_rewards::sandbox::helper() {
//!         return code; // this process was the helper
//!     }
//!     // build rubrics, judge completions
//!     std::process::ExitCode::SUCCESS
//! }
//! ```

mod calls;
mod files;
mod helper;
mod host;
mod identity;
mod interpreter;
mod job;
mod limits;
mod pipes;
mod plan;
mod root;
mod scratch;
mod server;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use helper::{helper, helper_at};
pub(crate) use host::nonce;
pub use interpreter::{Interpreter, Work};
pub use limits::Limits;

/// How far a program is held. Each level has all that the ones before it have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// Limits on resources, a session of its own that is killed as a whole, an empty environment, no inherited files;
    /// under root, a user id of its own. The program still reads what that user reads and talks to the network.
    S0,
    /// And Landlock (files) and seccomp (system calls): it reads system folders and its interpreter, writes its own
    /// temporary folder, has no network, and reaches no other process.
    S1,
    /// And namespaces: its own tree of files, processes, network and System V objects, all gone when it ends.
    S2,
}

impl Level {
    /// All levels, lowest first.
    pub const ALL: [Self; 3] = [Self::S0, Self::S1, Self::S2];
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// The machinery failed; the program is not to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SandboxError(String);

impl SandboxError {
    fn new(what: impl std::fmt::Display, cause: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {cause}"))
    }
}

/// A program to run.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// An absolute path, and its arguments.
    pub argv: &'a [String],
    /// Names and contents of files in the folder that the program starts in.
    pub files: &'a [(&'a str, &'a str)],
    /// What it reads from standard input.
    pub input: &'a [u8],
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// It was killed: out of time.
    TimedOut,
    /// It was killed: it wrote more to standard output than is read.
    TooMuchOutput,
}

/// What came of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// How it ended.
    pub end: End,
    /// Standard output, up to the limit.
    pub stdout: Vec<u8>,
    /// The first 64 KiB of standard error.
    pub stderr: Vec<u8>,
}

/// A level that works here, with its limits.
#[derive(Debug, Clone)]
pub struct Sandbox {
    level: Level,
    readable: Vec<PathBuf>,
    limits: Limits,
}

impl Sandbox {
    /// At `level`; without one, at S2 or else S1, whichever this machine has. Programs may read `readable`, absolute
    /// paths, besides the system's folders.
    pub fn new(level: Option<Level>, readable: Vec<PathBuf>, limits: Limits) -> Result<Self, SandboxError> {
        let at = |level| Self { level, readable: readable.clone(), limits };
        if let Some(level) = level {
            let sandbox = at(level);
            return sandbox.probe().map(|()| sandbox).map_err(|problem| unavailable(&[(level, problem)]));
        }
        let mut problems = Vec::new();
        for level in [Level::S2, Level::S1] {
            match at(level).probe() {
                Ok(()) => return Ok(at(level)),
                Err(problem) => problems.push((level, problem)),
            }
        }
        Err(unavailable(&problems))
    }

    /// The level at which programs run.
    pub fn level(&self) -> Level {
        self.level
    }

    /// What each program may use.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Runs a program to its end, and kills all that it started.
    pub fn run(&self, task: &Task) -> Result<Run, SandboxError> {
        host::run(self, task)
    }

    /// Applies every layer and starts nothing.
    fn probe(&self) -> Result<(), SandboxError> {
        match self.run(&Task { argv: &[], files: &[], input: &[] })?.end {
            End::Exited(0) => Ok(()),
            end => Err(SandboxError::new("the probe ended early", format_args!("{end:?}"))),
        }
    }
}

fn unavailable(problems: &[(Level, SandboxError)]) -> SandboxError {
    let list: Vec<_> = problems.iter().map(|(level, problem)| format!("{level}: {problem}")).collect();
    let wayout = match problems.iter().any(|(level, _)| *level == Level::S0) {
        true => "model code cannot run here",
        false => "use a machine that has it, or set `level = \"S0\"` to run model code nearly unprotected",
    };
    SandboxError::new(format_args!("no sandbox ({})", list.join("; ")), wayout)
}
