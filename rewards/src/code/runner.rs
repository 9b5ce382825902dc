//! What runs a program: Python, found with the folders that it needs, or any command.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::sandbox::{End, Sandbox, Task};

/// Runs a program inside the sandbox.
const SCRIPT: &str = include_str!("script.py");

/// Calls a function inside the sandbox.
const DRIVER: &str = include_str!("driver.py");

/// No packages of the user's own, no files written beside sources. Not `-I`, which ignores the hash seed.
const FLAGS: [&str; 2] = ["-s", "-B"];

/// Nor any other packages, which saves most of the start.
const NO_PACKAGES: &str = "-S";

/// Printed by [`Runner::check`].
const SIGN: &str = "42\n";

/// What runs a program.
#[derive(Debug)]
pub(super) enum Runner {
    /// An interpreter and its flags.
    Python(Vec<String>),
    /// A command, to which the program's file is the last argument.
    Command(Vec<String>),
}

/// What an interpreter says of itself.
#[derive(Deserialize)]
struct About {
    /// The interpreter itself, not a link or a script that leads to it; in an environment, that environment's.
    bare: String,
    with_packages: String,
    folders: Vec<PathBuf>,
}

const ABOUT: &str = "import json, os, sys, sysconfig
bare = os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable)
folders = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, sysconfig.get_path('stdlib')]
folders += [os.path.realpath(folder) for folder in folders]
print(json.dumps({'bare': bare, 'with_packages': sys.executable, 'folders': folders}))";

impl Runner {
    /// Asks `python` where it lives, outside the sandbox: it is the user's own. Also gives the folders it reads.
    pub(super) fn python(python: &str, packages: bool) -> Result<(Self, Vec<PathBuf>), String> {
        let output = Command::new(python).args(["-I", "-c", ABOUT]).stdin(Stdio::null()).output();
        let wayout = "give `python` the path of a Python 3";
        let output = output.map_err(|error| format!("cannot start `{python}` ({error}); {wayout}"))?;
        let about: About = serde_json::from_slice(&output.stdout)
            .map_err(|_| format!("`{python}` does not say where it lives ({}); {wayout}", last_line(&output.stderr)))?;
        // An interpreter installed at the root would open every file.
        let folders = about.folders.into_iter().filter(|folder| folder != Path::new("/")).collect();
        let argv = match packages {
            true => with(&[about.with_packages], &FLAGS),
            false => with(&with(&[about.bare], &FLAGS), &[NO_PACKAGES]),
        };
        Ok((Self::Python(argv), folders))
    }

    /// Finds the program of `command` as a shell would.
    pub(super) fn command(command: &[String]) -> Result<Self, String> {
        let name = &command[0];
        let found = if name.contains('/') {
            std::path::absolute(name).ok().filter(|path| path.is_file())
        } else {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
        };
        let found = found.ok_or_else(|| format!("`command`: there is no program `{name}`; give its path"))?;
        Ok(Self::Command([&[found.to_string_lossy().into_owned()], &command[1..]].concat()))
    }

    /// The arguments that run `file`.
    pub(super) fn run(&self, file: &str) -> Vec<String> {
        match self {
            Self::Python(python) => with(python, &["-c", SCRIPT, file]),
            Self::Command(command) => with(command, &[file]),
        }
    }

    /// The arguments that call a function of `program.py`, for Python alone.
    pub(super) fn call(&self) -> Option<Vec<String>> {
        match self {
            Self::Python(python) => Some(with(python, &["-c", DRIVER])),
            Self::Command(_) => None,
        }
    }

    /// Whether Python starts in the sandbox; of other commands we know no program to try.
    pub(super) fn check(&self, sandbox: &Sandbox) -> Result<(), String> {
        let Self::Python(python) = self else { return Ok(()) };
        let argv = with(python, &["-c", "print(6 * 7)"]);
        let problem = match sandbox.run(&Task { argv: &argv, files: &[], input: &[] }) {
            Ok(run) if run.end == End::Exited(0) && run.stdout == SIGN.as_bytes() => return Ok(()),
            Ok(run) => last_line(&run.stderr),
            Err(error) => error.to_string(),
        };
        let level = sandbox.level();
        Err(format!(
            "`{}` does not start at {level} ({problem}); it must be readable by all users, as `/usr/bin/python3` is: \
             name another in `python`, or a folder that it needs in `readable`",
            python[0]
        ))
    }
}

fn with(argv: &[String], more: &[&str]) -> Vec<String> {
    argv.iter().cloned().chain(more.iter().map(|argument| (*argument).to_owned())).collect()
}

/// The last line of a program's errors, short and without control characters: `NameError: name 'x' is not defined`.
pub(super) fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.trim_end().lines().next_back().unwrap_or("");
    line.chars().filter(|c| !c.is_control()).take(120).collect()
}
