//! A run that is killed or asked to stop goes on as if nothing had happened.
//!
//! `RECKON_KILLS=20 cargo test --release -p reckon-rl --test it killing` kills at more points than the few of every day.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reckon_datasets::Counted;

use crate::program::{errors, reckon, records, small_run, succeeds, text};

const STEPS: usize = 8;

pub(crate) fn spawn(arguments: &[&str]) -> Child {
    reckon(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Whether a checkpoint is being written at this moment.
fn is_saving(run: &Path) -> bool {
    let names = std::fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    names.into_iter().any(|entry| entry.file_name().to_string_lossy().contains(".tmp-"))
}

/// Lets the child run for `delay`, and on until it is in the middle of a checkpoint if that is asked for; then kills it.
/// Says whether it was still running.
pub(crate) fn kill(child: &mut Child, run: &Path, delay: Duration, while_saving: bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < delay || (while_saving && !is_saving(run)) {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

#[test]
fn a_run_killed_at_any_point_and_resumed_equals_one_that_was_not() {
    let kills: u64 = std::env::var("RECKON_KILLS").map_or(4, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let config = small_run(folder.path(), STEPS, "grpo = {kl_coef = 0.01, completions_per_update = 8}");
    let straight = folder.path().join("straight");
    let start = Instant::now();
    succeeds(&["train", text(&config), "--out", text(&straight)]);
    let length = start.elapsed();

    let mut random = Counted::new(&[20]);
    let (mut point, mut attempt) = (0, 0);
    while point < kills {
        let run = folder.path().join(format!("killed-{attempt}"));
        attempt += 1;
        let mut child = spawn(&["train", text(&config), "--out", text(&run)]);
        while !run.join("config.toml").exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Several kills of one run, then its end.
        for _ in 0..2 {
            let delay = length.mul_f64(0.6 * random.unit());
            if !kill(&mut child, &run, delay, point % 2 == 1) {
                break;
            }
            point += 1;
            child = spawn(&["train", "--resume", text(&run)]);
        }
        child.wait().unwrap();
        succeeds(&["train", "--resume", text(&run)]);
        assert_eq!(records(&run), records(&straight), "after {point} kills");
    }
}

/// Sends a signal; the program says what it does and ends without an error.
pub(crate) fn ends_well_on(signal: &str, child: Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    assert!(errors(&output).contains("finishing the step, then saving"), "{}", errors(&output));
}

#[test]
fn a_run_asked_to_stop_finishes_its_step_saves_and_goes_on_when_resumed() {
    for signal in ["-INT", "-TERM"] {
        let folder = tempfile::tempdir().unwrap();
        let config = small_run(folder.path(), 100_000, "");
        let run = folder.path().join("run");
        let child = reckon(&["train", text(&config), "--out", text(&run)]).stderr(Stdio::piped()).spawn().unwrap();
        while !run.join("checkpoints/step-000002").exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        ends_well_on(signal, child);
        let (last, _) = reckon::checkpoint::latest(&run.join("checkpoints")).unwrap().unwrap();
        assert_eq!(records(&run).last().unwrap().step, last, "{signal}: nothing after the last save is lost");
    }
}
