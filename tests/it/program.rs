//! Runs the program itself, as a user would.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use reckon::metrics::Record;

/// The program with these arguments.
pub(crate) fn reckon(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reckon"));
    command.args(arguments);
    command
}

/// What it printed, once it has ended well.
pub(crate) fn succeeds(arguments: &[&str]) -> String {
    let output = reckon(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", errors(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Its complaint, once it has failed with exit code 1.
pub(crate) fn fails(arguments: &[&str]) -> String {
    let output = reckon(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", errors(&output));
    errors(&output)
}

pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A training config of a second or two on the embedded model, with `more` at its end.
pub(crate) fn small_run(folder: &Path, steps: usize, more: &str) -> PathBuf {
    let config = folder.join("config.toml");
    // These tests are of a processor, also on a machine with a card.
    let device = if more.contains("compute") { "" } else { "\ncompute = {device = 'cpu'}" };
    let text = format!(
        "steps = {steps}\nmodel = {{path = 'builtin:countdown'}}\ndata = {{dataset = 'countdown'}}
        rollout = {{prompts_per_step = 4, group_size = 4, max_new_tokens = 48}}
        eval = {{problems = 10, every = 2}}\nsave = {{every = 1, rollouts_every = 2}}
        rubric = {{verifiers = [{{kind = 'countdown'}}]}}\n{more}{device}"
    );
    std::fs::write(&config, text).unwrap();
    config
}

/// The records of a run less what depends on the clock.
pub(crate) fn records(run: &Path) -> Vec<Record> {
    let records = reckon::metrics::read(&run.join("metrics.jsonl")).unwrap();
    records.iter().map(Record::without_timings).collect()
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The config that makes the embedded base model, with paths that hold anywhere.
pub(crate) fn base_config(folder: &Path) -> PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/countdown");
    let config = folder.join("base.toml");
    let original = std::fs::read_to_string(format!("{root}/base.toml")).unwrap();
    std::fs::write(&config, original.replace("examples/countdown", root)).unwrap();
    config
}
