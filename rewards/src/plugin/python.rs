//! Kinds `python`, `python_trl` and `python_verl`: a function in a Python file, called by the small script of `entry.py` and
//! `worker.py` that lives in this binary. Nothing has to be installed but `python3`.

use std::process::Command;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::command::ProcessOptions;
use super::pool::PoolOptions;
use super::{OnError, PluginOptions, Setup};
use crate::Scope;

const WORKER: &str = concat!(include_str!("entry.py"), include_str!("worker.py"));

fn python3() -> String {
    "python3".into()
}

fn whole_groups() -> Scope {
    Scope::Group
}

/// The command of a worker: the script, and what it must know.
fn worker(python: &str, told: Value) -> impl Fn() -> Command + Send + Sync + 'static {
    let (python, told) = (python.to_owned(), told.to_string());
    move || {
        let mut command = Command::new(&python);
        command.args(["-c", WORKER, &told]);
        command
    }
}

/// Options of kind `python`: a function from a dict to a bool or a number.
///
/// The dict has `question`, `answer`, `info` (all columns of the row as the file has them), `completion`, `tokens` (how
/// many were sampled), `truncated`, `rewards` (what tools gave for its calls), and `example` (the row's name). Instead of
/// a number the function may return None (not judged), or a dict of `reward`, `reason` and `parsed`. With scope `group`
/// it gets a list of such dicts and returns a list.
///
/// ```
/// use reckon_datasets::Example;
/// use reckon_rewards::{Plugin, PythonOptions, Verifier};
///
/// let file = std::env::temp_dir().join(format!("reckon-doc-{}.py", std::process::id()));
/// std::fs::write(&file, "def verify(row):\n    return row['completion'].strip() == row['answer']\n")?;
/// let verifier = Plugin::new("mine", &PythonOptions::new(&format!("{}:verify", file.display())))?;
/// let example = Example { id: "1".into(), question: "2 + 2?".into(), answer: "4".into(), ..Example::default() };
/// assert!(verifier.verify(&example, " 4\n")?.passed());
/// assert!(!verifier.verify(&example, "5")?.passed());
/// # std::fs::remove_file(file)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PythonOptions {
    /// `path/to/file.py:function`, or `module:function`.
    pub entry: String,
    /// Further arguments of the function, by name.
    #[serde(default)]
    pub kwargs: Map<String, Value>,
    /// Whether the function judges one completion or a whole group.
    #[serde(default)]
    pub scope: Scope,
    /// How an answer stands in a completion, with `{answer}` in its place: `Answer: {answer}`. Audits try the answers
    /// of rows so; without it they cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
    /// What becomes of a completion over which it fails.
    #[serde(default)]
    pub on_error: OnError,
    /// The interpreter.
    #[serde(default = "python3")]
    pub python: String,
    /// How many workers, and how faults are met.
    #[serde(default)]
    pub pool: PoolOptions,
    /// How the workers run.
    #[serde(default)]
    pub process: ProcessOptions,
}

impl PythonOptions {
    /// The function with every other option at its default.
    pub fn new(entry: &str) -> Self {
        let (pool, process) = Default::default();
        let (kwargs, scope) = Default::default();
        Self {
            entry: entry.into(),
            kwargs,
            scope,
            layout: None,
            on_error: OnError::Stop,
            python: python3(),
            pool,
            process,
        }
    }
}

impl PluginOptions for PythonOptions {
    fn setup(&self) -> Setup {
        let skip = self.on_error == OnError::Skip;
        let told = json!({"style": "plain", "entry": self.entry, "kwargs": self.kwargs, "skip": skip});
        let setup = self.process.setup(self.scope, &self.pool, worker(&self.python, told));
        setup.laid_out(&self.layout).on_error(self.on_error)
    }
}

/// Options of kind `python_trl`: a reward function as TRL's `GRPOTrainer` takes it,
/// `f(prompts, completions, **columns) -> list[float | None]`, unchanged.
///
/// The columns are the row's as the file has them, all but `prompt`, each a list; the function gets those that it names,
/// or all by `**kwargs`. `None` says that a completion is not judged. A call holds all completions of one prompt.
///
/// ```
/// use reckon_datasets::Example;
/// use reckon_rewards::{Plugin, TrlOptions, Verifier};
///
/// let file = std::env::temp_dir().join(format!("reckon-doc-trl-{}.py", std::process::id()));
/// std::fs::write(&file, "
/// def accuracy(prompts, completions, solution, **kwargs):
///     return [1.0 if right in text else 0.0 for text, right in zip(completions, solution)]
/// ")?;
/// let mut options = TrlOptions::new(&format!("{}:accuracy", file.display()));
/// options.answer_column = Some("solution".into());
/// let verifier = Plugin::new("accuracy", &options)?;
/// let example = Example { id: "1".into(), question: "2 + 2?".into(), answer: "4".into(), ..Example::default() };
/// assert!(verifier.verify(&example, "it is 4")?.passed());
/// # std::fs::remove_file(file)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrlOptions {
    /// `path/to/file.py:function`, or `module:function`.
    pub entry: String,
    /// Further arguments of the function, by name.
    #[serde(default)]
    pub kwargs: Map<String, Value>,
    /// The argument that holds the reference answers, in place of a column of that name; without it they stand in
    /// `answer` where the row has no such column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_column: Option<String>,
    /// Whether prompts and completions are lists of messages rather than texts; without it they are what the row's
    /// prompt is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversational: Option<bool>,
    /// Whether the lists hold one completion or a whole group.
    #[serde(default = "whole_groups")]
    pub scope: Scope,
    /// How an answer stands in a completion, with `{answer}` in its place: `Answer: {answer}`. Audits try the answers
    /// of rows so; without it they cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
    /// What becomes of a completion over which it fails.
    #[serde(default)]
    pub on_error: OnError,
    /// The interpreter.
    #[serde(default = "python3")]
    pub python: String,
    /// How many workers, and how faults are met.
    #[serde(default)]
    pub pool: PoolOptions,
    /// How the workers run.
    #[serde(default)]
    pub process: ProcessOptions,
}

impl TrlOptions {
    /// The function with every other option at its default.
    pub fn new(entry: &str) -> Self {
        let PythonOptions { entry, kwargs, python, pool, process, .. } = PythonOptions::new(entry);
        let (scope, on_error) = (whole_groups(), OnError::Stop);
        let (answer_column, conversational, layout) = (None, None, None);
        Self { entry, kwargs, answer_column, conversational, scope, layout, on_error, python, pool, process }
    }
}

impl PluginOptions for TrlOptions {
    fn setup(&self) -> Setup {
        let told = json!({
            "style": "trl", "entry": self.entry, "kwargs": self.kwargs,
            "answer_column": self.answer_column, "conversational": self.conversational,
            "skip": self.on_error == OnError::Skip,
        });
        let setup = self.process.setup(self.scope, &self.pool, worker(&self.python, told));
        setup.laid_out(&self.layout).on_error(self.on_error).with_token_ids()
    }
}

/// Options of kind `python_verl`: a reward function as verl's `custom_reward_function` takes it,
/// `compute_score(data_source, solution_str, ground_truth, extra_info=None)`, unchanged.
///
/// It returns a number, or a dict with `score`. `data_source`, `extra_info` and `reward_model.ground_truth` are columns
/// of the row; without the last, the reference answer is the ground truth.
///
/// ```
/// use reckon_datasets::Example;
/// use reckon_rewards::{Plugin, Verifier, VerlOptions};
///
/// let file = std::env::temp_dir().join(format!("reckon-doc-verl-{}.py", std::process::id()));
/// std::fs::write(&file, "
/// def compute_score(data_source, solution_str, ground_truth, extra_info=None):
///     return {'score': float(ground_truth in solution_str), 'acc': 1}
/// ")?;
/// let verifier = Plugin::new("score", &VerlOptions::new(&format!("{}:compute_score", file.display())))?;
/// let example = Example { id: "1".into(), question: "2 + 2?".into(), answer: "4".into(), ..Example::default() };
/// assert!(verifier.verify(&example, "it is 4")?.passed());
/// # std::fs::remove_file(file)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerlOptions {
    /// `path/to/file.py:function`, or `module:function`.
    pub entry: String,
    /// Further arguments of the function, by name: verl's `reward_kwargs`.
    #[serde(default)]
    pub kwargs: Map<String, Value>,
    /// How an answer stands in a completion, with `{answer}` in its place: `Answer: {answer}`. Audits try the answers
    /// of rows so; without it they cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
    /// What becomes of a completion over which it fails.
    #[serde(default)]
    pub on_error: OnError,
    /// The interpreter.
    #[serde(default = "python3")]
    pub python: String,
    /// How many workers, and how faults are met.
    #[serde(default)]
    pub pool: PoolOptions,
    /// How the workers run.
    #[serde(default)]
    pub process: ProcessOptions,
}

impl VerlOptions {
    /// The function with every other option at its default.
    pub fn new(entry: &str) -> Self {
        let PythonOptions { entry, kwargs, python, pool, process, .. } = PythonOptions::new(entry);
        Self { entry, kwargs, layout: None, on_error: OnError::Stop, python, pool, process }
    }
}

impl PluginOptions for VerlOptions {
    fn setup(&self) -> Setup {
        let skip = self.on_error == OnError::Skip;
        let told = json!({"style": "verl", "entry": self.entry, "kwargs": self.kwargs, "skip": skip});
        let setup = self.process.setup(Scope::Completion, &self.pool, worker(&self.python, told));
        setup.laid_out(&self.layout).on_error(self.on_error)
    }
}
