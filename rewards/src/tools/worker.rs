//! Tools of the user's own outside this program: any program, or a Python function or class. A call is a line of JSON with
//! the row, the state and the input; its answer is a line with the text, the next state and perhaps a reward
//! (`rewards/README.md`).

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Said, State, Tool};
use crate::ProcessOptions;
use crate::plugin::channel::{Channel, NoLine};
use crate::plugin::command::{of_words, seconds};

const WORKER: &str = concat!(include_str!("../plugin/entry.py"), include_str!("tool.py"));

fn python3() -> String {
    "python3".into()
}

fn ten() -> f64 {
    10.0
}

/// Options of kind `command`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandToolOptions {
    /// What calls name it by; the kind when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The program and its arguments; no shell reads them.
    pub command: Vec<String>,
    /// Seconds for an answer.
    #[serde(default = "ten")]
    pub timeout_s: f64,
    /// How the workers run.
    #[serde(default)]
    pub process: ProcessOptions,
}

/// Options of kind `function`: a function of the input, or a class with `step(state, input)` and, where it has a first
/// state, `reset(row)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionOptions {
    /// What calls name it by; the kind when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `path/to/file.py:function`, `path/to/file.py:Class`, or with a module in place of the file.
    pub entry: String,
    /// Further arguments of the function, or those that the class is made with, by name.
    #[serde(default)]
    pub kwargs: Map<String, Value>,
    /// The interpreter.
    #[serde(default = "python3")]
    pub python: String,
    /// Seconds for an answer.
    #[serde(default = "ten")]
    pub timeout_s: f64,
    /// How the workers run.
    #[serde(default)]
    pub process: ProcessOptions,
}

/// A tool that processes answer for: as many as there are calls at a time.
pub struct WorkerTool {
    start: Box<dyn Fn() -> Result<Channel, String> + Send + Sync>,
    idle: Mutex<Vec<Channel>>,
    timeout: Duration,
    /// The id of the next call.
    next: AtomicU64,
}

/// What a worker says of a call.
#[derive(Deserialize)]
struct Told {
    id: Option<u64>,
    answer: Option<String>,
    error: Option<String>,
    #[serde(default)]
    state: Value,
    #[serde(default)]
    reward: Value,
}

impl WorkerTool {
    /// A tool of kind `command`.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn command(options: &CommandToolOptions) -> Result<Self, String> {
        let words = options.command.clone();
        Self::new(&options.process, options.timeout_s, move || of_words(&words))
    }

    /// A tool of kind `function`.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn function(options: &FunctionOptions) -> Result<Self, String> {
        let told = json!({"entry": options.entry, "kwargs": options.kwargs}).to_string();
        let words = [options.python.as_str(), "-c", WORKER, &told].map(String::from);
        Self::new(&options.process, options.timeout_s, move || of_words(&words))
    }

    /// Starts a worker at once, so that a tool that cannot work is found before the first call.
    fn new(
        process: &ProcessOptions,
        timeout_s: f64,
        command: impl Fn() -> Command + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let (process, timeout) = (process.clone(), seconds("timeout_s", timeout_s)?);
        if timeout.is_zero() {
            return Err(format!("`timeout_s = {timeout_s}` must be a number of seconds above 0"));
        }
        let start = Box::new(move || process.channel(command()));
        let idle = Mutex::new(vec![start()?]);
        Ok(Self { start, idle, timeout, next: AtomicU64::new(0) })
    }

    fn take(&self) -> Result<Channel, String> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| (self.start)(), Ok)
    }
}

impl Tool for WorkerTool {
    fn call(&self, example: &Example, state: &mut State, input: &str) -> Result<Said, String> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let before = if let State::Told(value) = state { &*value } else { &Value::Null };
        let Example { id: name, question, answer, info, .. } = example;
        let line = json!({
            "id": id, "example": name, "question": question, "answer": answer, "info": info, "state": before,
            "input": input,
        });
        let mut channel = self.take()?;
        channel.send(std::iter::once(line.to_string().as_str()));
        let told: Told = match channel.receive(Instant::now() + self.timeout) {
            Ok(line) => serde_json::from_slice(line)
                .map_err(|error| format!("junk: {} ({error})", super::one_line(&String::from_utf8_lossy(line))))?,
            // The call's doing: its worker goes, and another answers the next.
            Err(NoLine::Late) => return Ok(Said::failed(format!("no answer within {} s", self.timeout.as_secs_f64()))),
            Err(NoLine::Closed(end)) => return Ok(Said::failed(format!("the tool {end}"))),
            Err(NoLine::TooLong) => return Err("a worker wrote a line of more than 1 MiB".into()),
        };
        if told.id != Some(id) || channel.has_more() {
            return Err(format!("a worker answered call {:?} when {id} was asked, or twice", told.id));
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(channel);
        *state = State::Told(told.state);
        let text = match (told.answer, told.error) {
            (_, Some(error)) => Err(error),
            (Some(answer), None) => Ok(answer),
            (None, None) => return Err("an answer without `answer` or `error`".into()),
        };
        Ok(Said { text, reward: super::reward_in(&told.reward)? })
    }
}
