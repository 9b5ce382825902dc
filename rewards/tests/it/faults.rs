//! Each fault of a worker has the outcome that `rewards/README.md` states: the run goes on, or it stops.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use reckon_datasets::Example;
use reckon_rewards::{
    CommandOptions, Outcome, Plugin, PoolOptions, ProcessOptions, Submission, Verdict, Verifier, VerifierError,
};

const TIMEOUT_S: f64 = 0.4;

fn options(command: &[&str]) -> CommandOptions {
    CommandOptions {
        command: command.iter().map(ToString::to_string).collect(),
        pool: PoolOptions { workers: 1, timeout_s: TIMEOUT_S, retries: 1, max_faults: 3 },
        process: ProcessOptions { memory_mb: 512, ..Default::default() },
        ..Default::default()
    }
}

fn rogue() -> Plugin {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plugins/rogue.py");
    Plugin::new("rogue", &options(&["python3", "-I", "-S", script])).unwrap()
}

/// A file that does not exist yet, told to the worker as the question.
fn note(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("reckon-{}-{}", std::process::id(), name.replace(' ', "-")));
    let _ = std::fs::remove_file(&path);
    path
}

fn judge(plugin: &Plugin, question: &str, completions: &[&str]) -> Result<Vec<Verdict>, VerifierError> {
    let example = |row| Example {
        id: format!("row-{row}"),
        question: question.into(),
        answer: "".into(),
        messages: Vec::new(),
        info: Default::default(),
    };
    let rows: Vec<_> = (0..completions.len()).map(example).collect();
    let batch: Vec<_> = rows.iter().zip(completions).map(|(row, text)| Submission::new(row, text)).collect();
    plugin.verify_batch(&batch)
}

/// One bad completion between two good ones costs only its own reward.
fn goes_on(fault: &str, expected: Outcome) -> PathBuf {
    let (plugin, note) = (rogue(), note(fault));
    let verdicts = judge(&plugin, note.to_str().unwrap(), &["is fine", fault, "is fine"]).unwrap();
    let outcomes: Vec<_> = verdicts.iter().map(|verdict| verdict.outcome).collect();
    assert_eq!(outcomes, [Outcome::Pass, expected, Outcome::Pass], "{fault}: {verdicts:?}");
    assert_eq!(verdicts[1].reward, f32::from(expected == Outcome::Pass), "{fault}");
    assert_eq!(judge(&plugin, "", &["is fine"]).unwrap()[0].outcome, Outcome::Pass, "the pool is whole after {fault}");
    note
}

fn assert_gone(note: &PathBuf) {
    let pid = std::fs::read_to_string(note).unwrap();
    let status = PathBuf::from(format!("/proc/{pid}/stat"));
    let start = Instant::now();
    // A killed orphan stays a zombie until whoever adopted it reaps it.
    while std::fs::read_to_string(&status).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(start.elapsed() < Duration::from_secs(5), "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::remove_file(note).unwrap();
}

#[test]
fn a_worker_that_sleeps_for_ever_is_killed_and_the_completion_has_timed_out() {
    goes_on("sleeps", Outcome::Timeout);
}

#[test]
fn a_worker_that_ignores_sigterm_is_killed_all_the_same() {
    assert_gone(&goes_on("ignores SIGTERM", Outcome::Timeout));
}

#[test]
fn a_worker_that_exits_or_takes_too_much_memory_has_crashed() {
    goes_on("exits", Outcome::Crash);
    goes_on("takes 10 GB", Outcome::Crash);
}

#[test]
fn children_of_a_worker_die_with_it() {
    assert_gone(&goes_on("leaves a child", Outcome::Timeout));
}

#[test]
fn a_crash_that_a_fresh_worker_does_not_repeat_costs_nothing() {
    std::fs::remove_file(goes_on("exits once", Outcome::Pass)).unwrap();
}

#[test]
fn a_worker_that_breaks_the_protocol_gives_no_reward_and_stops_the_run() {
    for (fault, expected) in [
        ("prints junk", "junk: Traceback: this is not JSON"),
        ("answers twice", "was answered twice"),
        ("answers for another", "was answered but not asked"),
        ("forgets the id", "an answer without an `id`"),
        ("forgets the reward", "an answer without a `reward`"),
        ("says NaN", "junk"),
        ("is too large", "not a finite number"),
        ("floods", "a line of more than 1 MiB"),
        ("gives up", "the database is gone"),
    ] {
        let error = judge(&rogue(), "", &["is fine", fault, "is fine"]).unwrap_err();
        let VerifierError::Infra { verifier, id, problem } = &error else { panic!("{fault}: {error}") };
        assert!(verifier == "rogue" && id == "row-1" && problem.contains(expected), "{fault}: {error}");
        assert!(problem.ends_with("(2 attempts)"), "{fault} is retried once: {error}");
    }
    // The second answer to the last call of a batch is found as well.
    let error = judge(&rogue(), "", &["answers twice"]).unwrap_err().to_string();
    assert!(error.contains("answered more than it was asked") || error.contains("answered twice"), "{error}");
}

#[test]
fn a_worker_that_dies_over_everything_stops_the_run() {
    let plugin = rogue();
    let error = judge(&plugin, "", &["is fine", "exits", "exits", "exits", "exits"]).unwrap_err().to_string();
    assert!(error.contains("3 completions in a row without a verdict") && error.contains("row-3"), "{error}");
    let plugin = rogue();
    let verdicts = judge(&plugin, "", &["exits", "exits", "is fine", "exits", "exits", "is fine"]).unwrap();
    assert_eq!(verdicts.iter().filter(|verdict| verdict.passed()).count(), 2, "a verdict in between starts the count");
}

#[test]
fn a_worker_that_cannot_start_is_found_before_the_first_completion() {
    for (command, expected) in [
        (&["no-such-program"][..], "`no-such-program` cannot be started"),
        (&[], "cannot be started"),
        (&["false"], "`false` ended (exit status: 1) before it was ready"),
        (&["echo", "hello"], "junk: hello"),
        (&["echo", "{\"id\": 1}"], "did not say {\"ready\": true} first"),
        (&["sleep", "1000"], "was not ready within 0.1 s"),
    ] {
        let mut options = options(command);
        options.process.start_s = if command.first() == Some(&"sleep") { 0.1 } else { 60.0 };
        let error = Plugin::new("mine", &options).err().unwrap().to_string();
        assert!(error.starts_with("verifier `mine` is misconfigured") && error.contains(expected), "{error}");
    }
    let mut options = options(&["true"]);
    options.pool.timeout_s = -1.0;
    let error = Plugin::new("mine", &options).err().unwrap().to_string();
    assert!(error.contains("`timeout_s = -1` must be"), "{error}");
}

#[test]
fn many_workers_share_a_batch_and_every_completion_gets_its_own_verdict() {
    let script = "
import json, sys
print(json.dumps({'ready': True}), flush=True)
for line in sys.stdin:
    call = json.loads(line)
    print(json.dumps({'id': call['id'], 'reward': int(call['completion'])}), flush=True)
";
    let mut options = options(&["python3", "-I", "-S", "-c", script]);
    options.pool = PoolOptions { workers: 3, timeout_s: 5.0, ..options.pool };
    let plugin = Plugin::new("number", &options).unwrap();
    let texts: Vec<String> = (0..500).map(|i| i.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let verdicts = judge(&plugin, "", &texts).unwrap();
                assert!(verdicts.iter().enumerate().all(|(i, verdict)| verdict.reward == i as f32));
            });
        }
    });
}
