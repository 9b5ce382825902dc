//! Kind `command`: any program that reads calls from its standard input and writes answers to its standard output,
//! and what all kinds that start processes share.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::channel::Channel;
use super::pool::{PoolOptions, Worker};
use super::worker::{ProcessWorker, ready};
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
            let timeout = seconds("timeout_s", timeout_s)?;
            Ok(Box::new(ProcessWorker::of(options.channel(command())?, timeout)) as Box<dyn Worker>)
        };
        Setup::new(scope, pool, start)
    }

    /// Both pipes of a process of `command` that is ready.
    pub(crate) fn channel(&self, mut command: Command) -> Result<Channel, String> {
        command.env_clear();
        let passed = PASSED.into_iter().chain(self.env.iter().map(String::as_str));
        command.envs(passed.filter_map(|name| Some((name, std::env::var_os(name)?))));
        // What it says must not depend on where or when it is asked.
        command.envs([("PYTHONHASHSEED", "0"), ("TZ", "UTC"), ("LC_ALL", "C.UTF-8")]);
        let memory = (self.memory_mb > 0).then_some(self.memory_mb << 20);
        ready(command, memory, seconds("start_s", self.start_s)?)
    }
}

/// The seconds that a key gives.
pub(crate) fn seconds(key: &str, value: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(value).map_err(|error| format!("`{key} = {value}`: {error}"))
}

/// The program and its arguments.
pub(crate) fn of_words(words: &[String]) -> Command {
    // Without a program, starting it fails by its empty name.
    let mut words = words.iter();
    let mut command = Command::new(words.next().map(PathBuf::from).unwrap_or_default());
    command.args(words);
    command
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
        let setup = self.process.setup(self.scope, &self.pool, move || of_words(&words));
        setup.laid_out(&self.layout).on_error(self.on_error)
    }
}
