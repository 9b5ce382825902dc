//! The answer is a program, and test cases judge it. The judge is this process: the program runs in a
//! [`Sandbox`](crate::sandbox::Sandbox), gets its input, and never what is expected of it.

mod cases;
mod checker;
mod compare;
pub(crate) mod failure;
mod program;
pub(crate) mod python;
mod runner;
mod shapes;

use std::path::PathBuf;

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::sandbox::{Level, Limits, SandboxError};
use crate::{
    AnswerFrom, Credit, ExtractOptions, Extractor, Outcome, Reference, ReferenceKind, Verdict, Verifier, VerifierError,
};

use cases::{Call, Stream, Suite};
use checker::Checker;
pub use compare::{Compare, Tolerance};
use failure::Failure;
use python::{Making, Python, Request, Source};
use runner::{Command, Runner};

/// Options of kind `code`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CodeOptions {
    /// The column of `info` with the test cases; one inside another is written `outer.inner`.
    pub tests: String,
    /// The column of `info` with a program that passes, or a list of them, for audits; `answer` without the column.
    pub solution: String,
    /// What passing only some tests earns. With [`Credit::All`] the first test that fails is the last that runs; with
    /// [`Credit::Share`] one that times out is, so that a program that hangs costs its time once.
    pub credit: Credit,
    /// How printed text is compared.
    pub compare: Compare,
    /// How far numbers may be off; not at all when absent. A row or a test may have its own `tolerance`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Tolerance>,
    /// A file of Python with a function `check(input, expected, got)` that judges instead of a comparison.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checker: Option<PathBuf>,
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
            checker: None,
            labels: ["python", "python3", "py"].map(Into::into).into(),
            think_tag: "think".into(),
            prelude: String::new(),
            python: "python3".into(),
            packages: false,
            command: Vec::new(),
            file: "program.py".into(),
            readable: Vec::new(),
            level: None,
            limits: Limits::default(),
        }
    }
}

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
/// let example = Example { id: "1".into(), question: "Double x.".into(), answer: "".into(), messages: Vec::new(), info };
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
    checker: Option<Checker>,
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
        let (limits, readable) = (options.limits, options.readable.clone());
        let making = Making { level: options.level, readable, limits };
        let python = || Python::find(&options.python, options.packages, &making);
        let runner = match &options.command[..] {
            [] => python().map(|python| Runner::Python(python, options.prelude.clone())),
            command => Command::find(command, &options.file, &options.prelude, &making).map(Runner::Command),
        };
        let runner = runner.map_err(misconfigured)?;
        let checker = options.checker.as_deref().map(|path| match &runner {
            Runner::Python(python, _) => Checker::new(path, python.clone()),
            Runner::Command(_) => python().and_then(|python| Checker::new(path, python)),
        });
        let checker = checker.transpose().map_err(misconfigured)?;
        Ok(Self { name: name.into(), options: options.clone(), thoughts, runner, checker })
    }

    /// How many tests `example` has in `column`, or why they cannot be read. Runs nothing.
    pub fn count_tests(example: &Example, column: &str) -> Result<usize, String> {
        Suite::read(example, column).map(|suite| suite.len())
    }

    /// The level of the sandbox that programs run in.
    pub fn level(&self) -> Level {
        self.runner.level()
    }

    /// Why each program has to start an interpreter of its own; `None` where they are prepared.
    pub fn unprepared(&self) -> Option<&str> {
        self.runner.unprepared()
    }

    /// The tests of an example, which every program of it can be held to.
    fn suite(&self, example: &Example) -> Result<Suite, String> {
        let suite = Suite::read(example, &self.options.tests)?;
        match (&self.runner, &suite) {
            (Runner::Command(_), Suite::Calls { .. }) => {
                Err("its tests call a function, which only Python can; leave `command` out".into())
            }
            _ if self.checker.is_some() => Ok(suite),
            _ => suite.comparable().map_err(|problem| format!("`info.{}`: {problem}", self.options.tests)),
        }
    }

    /// One test: the share of it that is passed, or how it failed.
    fn test(&self, program: &str, suite: &Suite, index: usize) -> Result<Result<f32, Failure>, SandboxError> {
        match (suite, &self.runner) {
            (Suite::Streams(streams), _) => self.stream(program, &streams[index]),
            (Suite::Calls { function, calls }, Runner::Python(python, prelude)) => {
                self.call(python, Source { prelude, program }, function, &calls[index])
            }
            (Suite::Calls { .. }, Runner::Command(_)) => unreachable!("such a suite is refused as it is read"),
        }
    }

    fn stream(&self, program: &str, test: &Stream) -> Result<Result<f32, Failure>, SandboxError> {
        let run = self.runner.run(program, test.input.as_bytes())?;
        if let Some(failure) = Failure::of(&run, self.runner.limits()) {
            return Ok(Err(failure));
        }
        let Ok(got) = std::str::from_utf8(&run.stdout) else {
            return Ok(Err(Failure::wrong("the output is not UTF-8")));
        };
        if let Some(checker) = &self.checker {
            return checker.share([&json!(test.input), &json!(test.output), &json!(got)]);
        }
        let tolerance = test.tolerance.or(self.options.tolerance);
        let expected = test.output.as_deref().unwrap_or_default();
        let equal = compare::text(self.options.compare, tolerance, expected, got);
        Ok(if equal { Ok(1.0) } else { Err(Failure::wrong("wrong output")) })
    }

    fn call(
        &self,
        python: &Python,
        source: Source,
        function: &str,
        test: &Call,
    ) -> Result<Result<f32, Failure>, SandboxError> {
        let got = match python.call(source, Request { function, args: &test.args, kwargs: &test.kwargs })? {
            Ok(got) => got,
            Err(failure) => return Ok(Err(failure)),
        };
        if let Some(checker) = &self.checker {
            let input = if test.kwargs == json!({}) { &test.args } else { &json!([test.args, test.kwargs]) };
            return checker.share([input, test.expected.first().unwrap_or(&Value::Null), &got]);
        }
        let tolerance = test.tolerance.or(self.options.tolerance);
        let equal = test.expected.iter().any(|expected| compare::value(tolerance, expected, &got));
        Ok(if equal { Ok(1.0) } else { Err(Failure::wrong("wrong value")) })
    }
}

impl Verifier for Code {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self, example: &Example) -> Result<(), VerifierError> {
        self.suite(example).map(drop).map_err(|problem| VerifierError::example(&self.name, example, problem))
    }

    fn verify(&self, example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        let bad = |problem: String| VerifierError::example(&self.name, example, problem);
        let suite = self.suite(example).map_err(bad)?;
        let answer = self.thoughts.answer(completion);
        let program = match answer.and_then(|text| program::program(text, &self.options.labels)) {
            Ok(program) => program,
            Err(reason) => return Ok(Verdict::zero(Outcome::Unparsed, reason)),
        };
        let (mut passed, mut first) = (0.0, None);
        for index in 0..suite.len() {
            let tested = self
                .test(program, &suite, index)
                .map_err(|error| VerifierError::infra(&self.name, example, error.to_string()))?;
            let failure = match tested {
                Ok(share) => {
                    passed += share;
                    if share >= 1.0 {
                        continue;
                    }
                    Failure::wrong(format!("the checker gives {share}"))
                }
                Err(failure) => failure,
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
    fn verdict(&self, program: &str, passed: f32, tests: usize, first: Option<(usize, Failure)>) -> Verdict {
        let Some((index, Failure { outcome, reason })) = first else {
            return Verdict::pass(program, format!("all {tests} tests passed"));
        };
        let reward = match self.options.credit {
            Credit::All => 0.0,
            Credit::Share => passed / tests as f32,
        };
        let reason = format!("test {} of {tests}: {reason}", index + 1).into();
        Verdict { reward, outcome, parsed: Some(program.into()), reason }
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
    if !bound.is_sound() {
        return Err(format!(
            "`tolerance` {{abs = {}, rel = {}}} must be finite and not negative",
            bound.abs, bound.rel
        ));
    }
    Ok(())
}
