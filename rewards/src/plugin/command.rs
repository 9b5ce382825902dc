//! Kind `command`: any program that reads calls from its standard input and writes answers to its standard output,
//! and what all kinds that start processes share.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pool::{PoolOptions, Worker};
use super::worker::ProcessWorker;
use super::{OnError, PluginOptions, Setup};
use crate::Scope;

/// Variables that every worker gets, where they are set. Others hold secrets that a worker has no use for.
const PASSED: [&str; 8] =
    ["PATH", "HOME", "USER", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"];

/// Options of all kinds that start processes, under the key `process`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessOptions {
    /// Seconds from the start of a worker until it must be ready.
    pub start_s: f64,
    /// Most private memory of a worker, in MiB; 0 does not limit it.
    pub memory_mb: u64,
    /// Names of environment variables that are passed on, beside the usual few.
    pub env: Vec<String>,
}

impl Default for ProcessOptions {
    fn default() -> Self {
        Self { start_s: 120.0, memory_mb: 4096, env: Vec::new() }
    }
}

impl ProcessOptions {
    /// A setup that starts the processes that `command` makes.
    pub(super) fn setup(
        &self,
        scope: Scope,
        pool: &PoolOptions,
        command: impl Fn() -> Command + Send + Sync + 'static,
    ) -> Setup {
        let (options, timeout_s) = (self.clone(), pool.timeout_s);
        let start = move || {
            let mut command = command();
            command.env_clear();
            let passed = PASSED.into_iter().chain(options.env.iter().map(String::as_str));
            command.envs(passed.filter_map(|name| Some((name, std::env::var_os(name)?))));
            // A verdict must not depend on where or when it is given.
            command.envs([("PYTHONHASHSEED", "0"), ("TZ", "UTC"), ("LC_ALL", "C.UTF-8")]);
            let seconds = |key: &str, value: f64| {
                Duration::try_from_secs_f64(value).map_err(|error| format!("`{key} = {value}`: {error}"))
            };
            let (start, timeout) = (seconds("start_s", options.start_s)?, seconds("timeout_s", timeout_s)?);
            let memory = (options.memory_mb > 0).then_some(options.memory_mb << 20);
            Ok(Box::new(ProcessWorker::start(command, memory, start, timeout)?) as Box<dyn Worker>)
        };
        Setup::new(scope, pool, start)
    }
}

/// Options of kind `command`.
///
/// ```
/// use reckon_datasets::Example;
/// use reckon_rewards::{CommandOptions, Plugin, PoolOptions, Verifier};
///
/// let script = r#"
///     echo '{"ready": true}'
///     while IFS= read -r call; do
///         id=${call#*\"id\":}; id=${id%%,*}
///         case $call in *'"completion":"please'*) reward=1 ;; *) reward=0 ;; esac
///         echo "{\"id\": $id, \"reward\": $reward}"
///     done"#;
/// let command = ["sh", "-c", script].map(String::from).to_vec();
/// let verifier = Plugin::new("polite", &CommandOptions { command, ..Default::default() })?;
/// let example = Example { id: "1".into(), question: "?".into(), answer: "".into(), ..Example::default() };
/// assert!(verifier.verify(&example, "please be so kind")?.passed());
/// assert!(!verifier.verify(&example, "do it")?.passed());
/// # Ok::<(), reckon_rewards::VerifierError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandOptions {
    /// The program and its arguments; no shell reads them.
    pub command: Vec<String>,
    /// Whether a call holds one completion or a whole group.
    #[serde(default)]
    pub scope: Scope,
    /// How an answer stands in a completion, with `{answer}` in its place: `Answer: {answer}`. Audits try the answers
    /// of rows so; without it they cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
    /// What becomes of a completion over which it fails.
    #[serde(default)]
    pub on_error: OnError,
    /// How many workers, and how faults are met.
    #[serde(default)]
    pub pool: PoolOptions,
    /// How the workers run.
    #[serde(default)]
    pub process: ProcessOptions,
}

impl PluginOptions for CommandOptions {
    fn setup(&self) -> Setup {
        let words = self.command.clone();
        let setup = self.process.setup(self.scope, &self.pool, move || {
            // Without a program, starting it fails by its empty name.
            let mut words = words.iter();
            let mut command = Command::new(words.next().map(PathBuf::from).unwrap_or_default());
            command.args(words);
            command
        });
        setup.laid_out(&self.layout).on_error(self.on_error)
    }
}
