//! The answer is a program, and test cases judge it. The judge is this process: the program runs in a
//! [`Sandbox`](crate::sandbox::Sandbox), gets its input, and never what is expected of it.

mod cases;
mod compare;
mod program;
mod runner;

use std::path::PathBuf;

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::sandbox::{End, Level, Limits, Run, Sandbox, SandboxError, Task};
use crate::{
    AnswerFrom, Credit, ExtractOptions, Extractor, Outcome, Reference, ReferenceKind, Verdict, Verifier, VerifierError,
};

use cases::{Call, Stream, Suite};
pub use compare::{Compare, Tolerance};
use runner::{Runner, last_line};

/// Options of kind `code`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CodeOptions {
    /// The column of `info` with the test cases.
    pub tests: String,
    /// The column of `info` with a program that passes, or a list of them, for audits; `answer` without the column.
    pub solution: String,
    /// What passing only some tests earns. With [`Credit::All`] the first test that fails is the last that runs; with
    /// [`Credit::Share`] one that times out is, so that a program that hangs costs its time once.
    pub credit: Credit,
    /// How printed text is compared.
    pub compare: Compare,
    /// How far numbers may be off; not at all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Tolerance>,
    /// Labels of code blocks that hold a program, in either case.
    pub labels: Vec<String>,
    /// Name of the thoughts' tag.
    pub think_tag: String,
    /// Text put before the program, such as imports.
    pub prelude: String,
    /// The Python 3 that runs programs.
    pub python: String,
    /// Whether Python programs may import the packages that are installed beside it. Starting takes longer.
    pub packages: bool,
    /// What runs programs instead of Python: a program and its arguments, to which `file` is added as the last.
    pub command: Vec<String>,
    /// Name of the program's file, for a `command`.
    pub file: String,
    /// Files and folders that programs may read besides the system's and Python's own.
    pub readable: Vec<PathBuf>,
    /// The level of the sandbox; when absent S2, or else S1, whichever works here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// What a program may use in each test.
    pub limits: Limits,
}

impl Default for CodeOptions {
    fn default() -> Self {
        Self {
            tests: "tests".into(),
            solution: "solution".into(),
            credit: Credit::All,
            compare: Compare::Lines,
            tolerance: None,
            labels: ["python", "python3", "py"].map(Into::into).into(),
            think_tag: "think".into(),
            prelude: String::new(),
            python: "python3".into(),
            packages: false,
            command: Vec::new(),
            file: PROGRAM.into(),
            readable: Vec::new(),
            level: None,
            limits: Limits::default(),
        }
    }
}

/// Where the driver of function calls finds the program.
const PROGRAM: &str = "program.py";

/// Passes a program that gives the expected output, or returns the expected value, in every test of `info.tests`.
///
/// ```standalone_crate
/// use reckon_datasets::Example;
/// use reckon_rewards::{Code, CodeOptions, Verifier, sandbox};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// if sandbox::helper().is_some() {
///     return Ok(()); // this process was the sandbox's helper
/// }
/// # if std::process::Command::new("python3").arg("-V").output().is_err() { return Ok(()) }
/// let verifier = match Code::new("code", &CodeOptions::default()) {
///     Ok(verifier) => verifier,
///     Err(problem) => return Ok(println!("skipped: {problem}")),
/// };
/// let tests = serde_json::json!([{"args": [2], "expected": 4}, {"args": [3], "expected": 6}]);
/// let info = serde_json::json!({"function": "double", "tests": tests});
/// let info = info.as_object().unwrap().clone();
/// let example = Example { id: "1".into(), question: "Double x.".into(), answer: "".into(), info };
/// let verdict = verifier.verify(&example, "```python\ndef double(x):\n    return x + x\n```")?;
/// assert!(verdict.passed(), "{verdict:?}");
/// let verdict = verifier.verify(&example, "```python\ndef double(x):\n    return x * x\n```")?;
/// assert_eq!(verdict.reason, "test 2 of 2: wrong value");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Code {
    name: String,
    options: CodeOptions,
    thoughts: Extractor,
    runner: Runner,
    sandbox: Sandbox,
}

impl Code {
    /// A verifier called `name`. Finds the interpreter and tries the sandbox, so that what is missing is said at once.
    pub fn new(name: &str, options: &CodeOptions) -> Result<Self, VerifierError> {
        let misconfigured = |problem: String| VerifierError::config(name, problem);
        check(options).map_err(misconfigured)?;
        let extract = ExtractOptions {
            from: AnswerFrom::AfterThoughts,
            think_tag: options.think_tag.clone(),
            ..ExtractOptions::default()
        };
        let thoughts = Extractor::new(name, &extract)?;
        let (runner, folders) = match options.command.is_empty() {
            true => Runner::python(&options.python, options.packages).map_err(misconfigured)?,
            false => (Runner::command(&options.command).map_err(misconfigured)?, Vec::new()),
        };
        let readable = options.readable.iter().cloned().chain(folders).collect();
        let sandbox =
            Sandbox::new(options.level, readable, options.limits).map_err(|error| misconfigured(error.to_string()))?;
        runner.check(&sandbox).map_err(misconfigured)?;
        Ok(Self { name: name.into(), options: options.clone(), thoughts, runner, sandbox })
    }

    /// The level of the sandbox that programs run in.
    pub fn level(&self) -> Level {
        self.sandbox.level()
    }

    /// One test: `Err` says how it failed.
    fn test(&self, program: &str, suite: &Suite, index: usize) -> Result<Result<(), Failure>, SandboxError> {
        match suite {
            Suite::Streams(streams) => self.stream(program, &streams[index]),
            Suite::Calls { function, calls } => self.call(program, function, &calls[index]),
        }
    }

    fn stream(&self, program: &str, test: &Stream) -> Result<Result<(), Failure>, SandboxError> {
        let file = &self.options.file;
        let task = Task { argv: &self.runner.run(file), files: &[(file, program)], input: test.input.as_bytes() };
        let run = self.sandbox.run(&task)?;
        Ok(self.ended_well(&run).and_then(|()| {
            let got = str::from_utf8(&run.stdout).map_err(|_| Failure::wrong("the output is not UTF-8"))?;
            let equal = compare::text(self.options.compare, self.options.tolerance, &test.output, got);
            if equal { Ok(()) } else { Err(Failure::wrong("wrong output")) }
        }))
    }

    fn call(&self, program: &str, function: &str, test: &Call) -> Result<Result<(), Failure>, SandboxError> {
        let nonce = crate::sandbox::nonce()?;
        let request =
            json!({"nonce": nonce, "function": function, "args": test.args, "kwargs": test.kwargs}).to_string();
        let argv = self.runner.call().unwrap_or_default();
        let task = Task { argv: &argv, files: &[(PROGRAM, program)], input: request.as_bytes() };
        let run = self.sandbox.run(&task)?;
        Ok(self.ended_well(&run).and_then(|()| {
            let got = returned(&run.stdout, &nonce).ok_or(Failure::wrong("it returned nothing that can be read"))?;
            let equal = compare::value(self.options.tolerance, &test.expected, &got);
            if equal { Ok(()) } else { Err(Failure::wrong("wrong value")) }
        }))
    }

    fn ended_well(&self, run: &Run) -> Result<(), Failure> {
        let (outcome, reason) = match run.end {
            End::Exited(0) => return Ok(()),
            End::Exited(status) => (Outcome::Crash, format!("exit status {status}: {}", last_line(&run.stderr))),
            End::Signaled(signal) => (Outcome::Crash, format!("killed by signal {signal}")),
            End::TimedOut => (Outcome::Timeout, "out of time".into()),
            End::TooMuchOutput => (Outcome::Fail, format!("more than {} KiB of output", self.options.limits.output_kb)),
        };
        Err(Failure { outcome, reason: reason.trim_end_matches(": ").into() })
    }
}

/// The one record on the driver's channel.
fn returned(stdout: &[u8], nonce: &str) -> Option<Value> {
    serde_json::from_slice(stdout.strip_prefix(nonce.as_bytes())?).ok()
}

/// How a test failed.
struct Failure {
    outcome: Outcome,
    reason: String,
}

impl Failure {
    fn wrong(reason: &str) -> Self {
        Self { outcome: Outcome::Fail, reason: reason.into() }
    }
}

impl Verifier for Code {
    fn name(&self) -> &str {
        &self.name
    }

    fn verify(&self, example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        let bad = |problem: String| VerifierError::example(&self.name, example, problem);
        let suite = Suite::read(&example.info, &self.options.tests).map_err(bad)?;
        if matches!(suite, Suite::Calls { .. }) && self.runner.call().is_none() {
            return Err(bad("its tests call a function, which only Python can; leave `command` out".into()));
        }
        let answer = self.thoughts.answer(completion);
        let program = match answer.and_then(|text| program::program(text, &self.options.labels)) {
            Ok(program) => format!("{}{program}", self.options.prelude),
            Err(reason) => return Ok(Verdict::zero(Outcome::Unparsed, reason)),
        };
        let (mut passed, mut first) = (0, None);
        for index in 0..suite.len() {
            let tested = self.test(&program, &suite, index).map_err(|error| VerifierError::Infra {
                verifier: self.name.clone(),
                id: example.id.clone(),
                problem: error.to_string(),
            })?;
            let Err(failure) = tested else {
                passed += 1;
                continue;
            };
            let last = self.options.credit == Credit::All || failure.outcome == Outcome::Timeout;
            first.get_or_insert((index, failure));
            if last {
                break;
            }
        }
        Ok(self.verdict(program, passed, suite.len(), first))
    }

    fn reference(&self, example: &Example) -> Option<Reference> {
        let program = match example.info.get(&self.options.solution) {
            Some(Value::String(program)) => program,
            Some(Value::Array(programs)) => programs.first()?.as_str()?,
            _ => &example.answer,
        };
        Reference::new(program, ReferenceKind::Program)
    }

    /// In a code block with a label that is read.
    fn lay_out(&self, draft: &str) -> String {
        let label = self.options.labels.first().map_or("", String::as_str);
        if draft.contains("```") { draft.to_owned() } else { format!("\n```{label}\n{draft}\n```\n") }
    }
}

impl Code {
    fn verdict(&self, program: String, passed: usize, tests: usize, first: Option<(usize, Failure)>) -> Verdict {
        let Some((index, Failure { outcome, reason })) = first else {
            return Verdict::pass(program, format!("all {tests} tests passed"));
        };
        let reward = match self.options.credit {
            Credit::All => 0.0,
            Credit::Share => passed as f32 / tests as f32,
        };
        let reason = format!("test {} of {tests}: {reason}", index + 1).into();
        Verdict { reward, outcome, parsed: Some(program), reason }
    }
}

fn check(options: &CodeOptions) -> Result<(), String> {
    if let Some(problem) = options.limits.problem() {
        return Err(problem);
    }
    if options.file.is_empty() || options.file.contains('/') {
        return Err(format!("`file = {:?}` must be the name of a file, without folders", options.file));
    }
    if let Some(path) = options.readable.iter().find(|path| !path.is_absolute() || path.parent().is_none()) {
        return Err(format!("`readable` holds {path:?}; it must be an absolute path below `/`"));
    }
    let bound = options.tolerance.unwrap_or_default();
    if !(bound.abs.is_finite() && bound.rel.is_finite() && bound.abs >= 0.0 && bound.rel >= 0.0) {
        return Err(format!(
            "`tolerance` {{abs = {}, rel = {}}} must be finite and not negative",
            bound.abs, bound.rel
        ));
    }
    Ok(())
}
