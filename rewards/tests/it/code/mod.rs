//! The `code` verifier: its verdicts, and what programs cannot do.

mod calls;
mod checkers;
mod escapes;
mod prepared;
mod syscalls;
mod verdicts;

use reckon_datasets::Example;
use reckon_rewards::sandbox::{Level, helper_at};
use reckon_rewards::{Code, CodeOptions, Verdict, Verifier};
use serde_json::{Value, json};

/// A verifier at `level` with `options`, or a printed word on what is missing here.
fn verifier_at(level: Level, options: Value) -> Option<Code> {
    helper_at(env!("CARGO_BIN_EXE_reckon-sandbox"));
    let mut options: CodeOptions = serde_json::from_value(options).unwrap();
    options.level = Some(level);
    // Under root the first may live where only root may look.
    let problems = ["python3", "/usr/bin/python3"].map(|python| {
        options.python = python.into();
        Code::new("code", &options)
    });
    let mut said = String::new();
    for built in problems {
        match built {
            Ok(verifier) => return Some(verifier),
            Err(problem) => said = problem.to_string(),
        }
    }
    eprintln!("skipped at {level}: {said}");
    None
}

/// At the highest level there is.
pub(crate) fn verifier(options: Value) -> Option<Code> {
    [Level::S2, Level::S1, Level::S0].into_iter().find_map(|level| verifier_at(level, options.clone()))
}

fn example(info: Value) -> Example {
    crate::common::example("", info)
}

fn judge(verifier: &Code, info: Value, program: &str) -> Verdict {
    verifier.verify(&example(info), &format!("<think>\nhm\n</think>\n```python\n{program}\n```\n")).unwrap()
}

/// One test: no input, this output.
fn prints(output: &str) -> Value {
    json!({"tests": [{"input": "", "output": output}]})
}
