//! Python in the sandbox, as a tool: a call is a program, its answer what the program prints. Each call is a process of
//! its own in an empty folder, so nothing is left of the call before. What the sandbox is, `sandbox/` says.

use std::path::PathBuf;

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};

use super::{Said, State, Tool};
use crate::code::failure::Failure;
use crate::code::python::{Making, Python, Source};
use crate::sandbox::{Level, Limits};

/// Options of kind `python`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProgramOptions {
    /// What calls name it by; the kind when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Text put before the program, such as imports.
    pub prelude: String,
    /// The Python 3 that runs programs.
    pub python: String,
    /// Whether programs may import the packages that are installed beside it. Starting takes longer.
    pub packages: bool,
    /// Files and folders that programs may read besides the system's and Python's own.
    pub readable: Vec<PathBuf>,
    /// The level of the sandbox; when absent S2, or else S1, whichever works here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// What a program may use.
    pub limits: Limits,
}

impl Default for ProgramOptions {
    fn default() -> Self {
        Self {
            name: None,
            prelude: String::new(),
            python: "python3".into(),
            packages: false,
            readable: Vec::new(),
            level: None,
            limits: Limits::default(),
        }
    }
}

/// Runs programs.
#[derive(Debug)]
pub struct Program {
    python: Python,
    prelude: String,
}

impl Program {
    /// Finds the interpreter and tries the sandbox.
    ///
    /// # Errors
    /// What is missing.
    pub fn new(options: &ProgramOptions) -> Result<Self, String> {
        if options.level == Some(Level::S0) {
            return Err(
                "`level = \"S0\"` would run the model's programs without a sandbox; take \"S1\" or \"S2\"".into()
            );
        }
        let making = Making { level: options.level, readable: options.readable.clone(), limits: options.limits };
        let python = Python::find(&options.python, options.packages, &making)?;
        Ok(Self { python, prelude: options.prelude.clone() })
    }
}

impl Tool for Program {
    fn call(&self, _: &Example, _: &mut State, input: &str) -> Result<Said, String> {
        let source = Source { prelude: &self.prelude, program: fenced(input) };
        let run = self.python.run(source, b"").map_err(|error| error.to_string())?;
        Ok(match Failure::of(&run, self.python.limits()) {
            Some(failure) => Said::failed(failure.reason),
            None => Said::answer(String::from_utf8_lossy(&run.stdout).trim_end()),
        })
    }
}

/// The program of a call that is one code block; else the call as it is.
fn fenced(input: &str) -> &str {
    let block = input.trim().strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    block.and_then(|block| block.split_once('\n')).map_or(input, |(_, program)| program)
}
