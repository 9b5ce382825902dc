//! Python inside the sandbox: scripts of our own, which in turn run a program.

use super::{Run, Sandbox, SandboxError, Task};

/// A script for an interpreter.
#[derive(Debug, Clone, Copy)]
pub struct Script<'a> {
    /// What it does.
    pub text: &'static str,
    /// What it finds in `sys.argv`.
    pub arguments: &'a [&'a str],
    /// Names and contents of files in the folder that it starts in.
    pub files: &'a [(&'a str, &'a str)],
    /// What it reads from standard input.
    pub input: &'a [u8],
}

/// A Python 3 with its flags, and the sandbox that it runs in.
#[derive(Debug, Clone)]
pub struct Interpreter {
    sandbox: Sandbox,
    argv: Vec<String>,
}

impl Interpreter {
    /// `argv` is the absolute path of the interpreter and its flags.
    pub fn new(sandbox: Sandbox, argv: Vec<String>) -> Self {
        Self { sandbox, argv }
    }

    /// The sandbox that scripts run in.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The path of the interpreter.
    pub fn program(&self) -> &str {
        &self.argv[0]
    }

    /// Runs a script to its end, and kills all that it started.
    pub fn run(&self, script: &Script) -> Result<Run, SandboxError> {
        let rest = ["-c", script.text].into_iter().chain(script.arguments.iter().copied()).map(ToOwned::to_owned);
        let argv: Vec<String> = self.argv.iter().cloned().chain(rest).collect();
        self.sandbox.run(&Task { argv: &argv, files: script.files, input: script.input })
    }
}
