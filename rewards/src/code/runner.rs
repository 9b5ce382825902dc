//! What runs a program: Python, or any command.

use super::python::{Making, Python, Source};
use crate::sandbox::{Level, Limits, Run, Sandbox, SandboxError, Task};

/// What runs a program.
#[derive(Debug)]
pub(super) enum Runner {
    /// Python, with the text that runs before each program.
    Python(Python, String),
    /// A command, to which the program's file is the last argument.
    Command(Command),
}

/// A command in a sandbox.
#[derive(Debug)]
pub(super) struct Command {
    argv: Vec<String>,
    file: String,
    /// Stands at the top of each program's file.
    prelude: String,
    sandbox: Sandbox,
}

impl Command {
    /// Finds the program of `command` as a shell would.
    pub(super) fn find(command: &[String], file: &str, prelude: &str, make: &Making) -> Result<Self, String> {
        let name = &command[0];
        let found = if name.contains('/') {
            std::path::absolute(name).ok().filter(|path| path.is_file())
        } else {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
        };
        let found = found.ok_or_else(|| format!("`command`: there is no program `{name}`; give its path"))?;
        let argv = [&[found.to_string_lossy().into_owned()], &command[1..], &[file.to_owned()]].concat();
        Ok(Self { argv, file: file.into(), prelude: prelude.into(), sandbox: make.sandbox(Vec::new())? })
    }
}

impl Runner {
    /// Runs a program that reads standard input.
    pub(super) fn run(&self, program: &str, input: &[u8]) -> Result<Run, SandboxError> {
        match self {
            Self::Python(python, prelude) => python.run(Source { prelude, program }, input),
            Self::Command(Command { argv, file, prelude, sandbox }) => {
                let text = format!("{prelude}{program}");
                sandbox.run(&Task { argv, files: &[(file, &text)], input })
            }
        }
    }

    pub(super) fn level(&self) -> Level {
        match self {
            Self::Python(python, _) => python.level(),
            Self::Command(command) => command.sandbox.level(),
        }
    }

    pub(super) fn unprepared(&self) -> Option<&str> {
        match self {
            Self::Python(python, _) => python.unprepared(),
            Self::Command(_) => None,
        }
    }

    pub(super) fn limits(&self) -> Limits {
        match self {
            Self::Python(python, _) => python.limits(),
            Self::Command(command) => command.sandbox.limits(),
        }
    }
}
