//! Runs Python programs and calls functions of them, in an interpreter that is found with the folders that it needs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};

use super::failure::{Failure, last_line};
use crate::sandbox::{End, Interpreter, Level, Limits, Run, Sandbox, SandboxError, Work, nonce};

/// What runs inside the sandbox.
const SCRIPTS: &[&str] = &[
    concat!(include_str!("load.py"), include_str!("script.py")),
    concat!(include_str!("load.py"), include_str!("driver.py")),
    "print(6 * 7)",
];

/// Runs a program.
const SCRIPT: usize = 0;
/// Calls a function.
const DRIVER: usize = 1;
/// Tells whether Python starts.
const SIGN: usize = 2;

/// No packages of the user's own, no files written beside sources. Not `-I`, which ignores the hash seed.
const FLAGS: [&str; 2] = ["-s", "-B"];

/// Nor any other packages, which saves most of the start.
const NO_PACKAGES: &str = "-S";

const PROGRAM: &str = "program.py";
const PRELUDE: &str = "prelude.py";

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

/// A source text with the text that runs before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) prelude: &'a str,
    pub(crate) program: &'a str,
}

impl<'a> Source<'a> {
    /// Names and contents of its files, in the order that they run in.
    fn files(&self) -> Vec<(&'static str, &'a str)> {
        let prelude = (!self.prelude.is_empty()).then_some((PRELUDE, self.prelude));
        prelude.into_iter().chain([(PROGRAM, self.program)]).collect()
    }
}

/// A function and what it is given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) function: &'a str,
    pub(crate) args: &'a Value,
    pub(crate) kwargs: &'a Value,
}

/// Python in a sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Python(Interpreter);

impl Python {
    /// Asks `python` where it lives, outside the sandbox: it is the user's own. Then tries it inside.
    pub(crate) fn find(python: &str, packages: bool, make: &Making) -> Result<Self, String> {
        let output = Command::new(python).args(["-I", "-c", ABOUT]).stdin(Stdio::null()).output();
        let wayout = "give `python` the path of a Python 3";
        let output = output.map_err(|error| format!("cannot start `{python}` ({error}); {wayout}"))?;
        let about: About = serde_json::from_slice(&output.stdout)
            .map_err(|_| format!("`{python}` does not say where it lives ({}); {wayout}", last_line(&output.stderr)))?;
        // An interpreter installed at the root would open every file.
        let folders = about.folders.into_iter().filter(|folder| folder != Path::new("/")).collect();
        let argv = match packages {
            true => [&[about.with_packages], &FLAGS.map(ToOwned::to_owned)[..]].concat(),
            false => [&[about.bare], &FLAGS.map(ToOwned::to_owned)[..], &[NO_PACKAGES.to_owned()]].concat(),
        };
        let python = Self(Interpreter::new(make.sandbox(folders)?, argv, SCRIPTS));
        python.check().map(|()| python)
    }

    fn check(&self) -> Result<(), String> {
        let problem = match self.0.run(SIGN, &Work { arguments: &[], files: &[], input: &[] }) {
            Ok(run) if run.end == End::Exited(0) && run.stdout == b"42\n" => return Ok(()),
            Ok(run) => last_line(&run.stderr),
            Err(error) => error.to_string(),
        };
        Err(format!(
            "`{}` does not start at {} ({problem}); it must be readable by all users, as `/usr/bin/python3` is: name \
             another in `python`, or a folder that it needs in `readable`",
            self.0.program(),
            self.level()
        ))
    }

    pub(crate) fn level(&self) -> Level {
        self.0.sandbox().level()
    }

    pub(crate) fn unprepared(&self) -> Option<&str> {
        self.0.unprepared()
    }

    /// Runs a program as the interpreter would.
    pub(crate) fn run(&self, source: Source, input: &[u8]) -> Result<Run, SandboxError> {
        self.script(SCRIPT, source, input)
    }

    /// Calls a function of a program: what it returned, or how it failed.
    pub(crate) fn call(&self, source: Source, request: Request) -> Result<Result<Value, Failure>, SandboxError> {
        let nonce = nonce()?;
        let Request { function, args, kwargs } = request;
        let request = json!({"nonce": nonce, "function": function, "args": args, "kwargs": kwargs}).to_string();
        let run = self.script(DRIVER, source, request.as_bytes())?;
        Ok(Failure::of(&run, self.limits()).map_or_else(
            || returned(&run.stdout, &nonce).ok_or(Failure::wrong("it returned nothing that can be read")),
            Err,
        ))
    }

    fn script(&self, script: usize, source: Source, input: &[u8]) -> Result<Run, SandboxError> {
        let files = source.files();
        let arguments: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        self.0.run(script, &Work { arguments: &arguments, files: &files, input })
    }

    pub(crate) fn limits(&self) -> Limits {
        self.0.sandbox().limits()
    }
}

/// The one record on the driver's channel.
fn returned(stdout: &[u8], nonce: &str) -> Option<Value> {
    serde_json::from_slice(stdout.strip_prefix(nonce.as_bytes())?).ok()
}

/// What a config says of the sandbox.
#[derive(Debug)]
pub(crate) struct Making {
    pub(crate) level: Option<Level>,
    pub(crate) readable: Vec<PathBuf>,
    pub(crate) limits: Limits,
}

impl Making {
    /// One in which programs read `folders` too.
    pub(crate) fn sandbox(&self, folders: Vec<PathBuf>) -> Result<Sandbox, String> {
        let readable = self.readable.iter().cloned().chain(folders).collect();
        Sandbox::new(self.level, readable, self.limits).map_err(|error| error.to_string())
    }
}
