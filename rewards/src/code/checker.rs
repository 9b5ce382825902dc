//! A user's own judge of what a program gave, for problems with many right outputs: `check(input, expected, got)` in a
//! file of Python. It runs in a process and a sandbox of its own, where the program is not, after the program has
//! ended.

use std::path::Path;

use serde_json::{Value, json};

use super::failure::Failure;
use super::python::{Python, Request, Source};
use crate::sandbox::SandboxError;

/// The function that a checker has.
const FUNCTION: &str = "check";

/// What tells, when the verifier is built, whether a checker can be loaded: a function that never calls it.
const PROBE: &str = "\nimport builtins as __builtins\ndef __loaded(): return __builtins.callable(check)\n";

/// A checker with the interpreter that runs it.
#[derive(Debug)]
pub(super) struct Checker {
    program: String,
    python: Python,
}

impl Checker {
    /// Reads the file and tries to load it.
    pub(super) fn new(path: &Path, python: Python) -> Result<Self, String> {
        let named = |problem: String| format!("`checker = {path:?}`: {problem}");
        let program = std::fs::read_to_string(path).map_err(|error| named(format!("cannot read it: {error}")))?;
        let probe = format!("{program}{PROBE}");
        let request = Request { function: "__loaded", args: &json!([]), kwargs: &json!({}) };
        let loaded = python.call(Source { prelude: "", program: &probe }, request);
        match loaded.map_err(|error| named(error.to_string()))? {
            Ok(Value::Bool(true)) => Ok(Self { program, python }),
            Ok(_) => Err(named("its `check` is no function".into())),
            Err(failure) => {
                Err(named(format!("it needs a function `check(input, expected, got)`: {}", failure.reason)))
            }
        }
    }

    /// What share of the test is passed, from 0 to 1. A checker that raises could not make sense of what it was given,
    /// which is the program's failure: what it returns is text or values of any kind.
    pub(super) fn share(&self, test: [&Value; 3]) -> Result<Result<f32, Failure>, SandboxError> {
        let request = Request { function: FUNCTION, args: &json!(test), kwargs: &json!({}) };
        let judged = self.python.call(Source { prelude: "", program: &self.program }, request)?;
        Ok(judged.map_err(|failure| Failure::wrong(format!("the checker: {}", failure.reason))).and_then(|value| {
            let share = value.as_bool().map(f64::from).or_else(|| value.as_f64());
            match share.filter(|share| (0.0..=1.0).contains(share)) {
                Some(share) => Ok(share as f32),
                None => {
                    Err(Failure::wrong(format!("the checker says {value}, which is no truth value and not 0 to 1")))
                }
            }
        }))
    }
}
