//! Groups that are made smaller or larger by what their first completions show, run as a user runs them.

use std::path::{Path, PathBuf};

use super::program::{records, small_run, succeeds, text};

/// A run of `steps` steps whose groups are probed with two completions.
pub(crate) fn probing_run(folder: &Path, steps: usize, goes_on: &str) -> PathBuf {
    let config = small_run(folder, steps, "grpo = {drop_zero_signal = true}");
    let probed = format!("max_new_tokens = 48, probe = 2, goes_on = '{goes_on}'");
    let run = std::fs::read_to_string(&config).unwrap().replace("max_new_tokens = 48", &probed);
    std::fs::write(&config, run).unwrap();
    config
}

#[test]
fn a_run_with_probes_is_the_same_whatever_the_capacity_and_the_threads_and_when_it_was_resumed() {
    for goes_on in ["mixed", "flat"] {
        let folder = tempfile::tempdir().unwrap();
        let config = probing_run(folder.path(), 3, goes_on);
        let out = |name: &str| folder.path().join(name);
        succeeds(&["train", text(&config), "--out", text(&out("whole"))]);
        let whole = records(&out("whole"));
        assert!(whole.iter().filter_map(|step| step.get("group/stopped_frac")).any(|share| share > 0.0), "{whole:?}");

        let few = ["--set", "rollout.capacity=3", "--set", "compute.threads=1"];
        succeeds(&[&["train", text(&config), "--out", text(&out("few"))], &few[..]].concat());
        assert_eq!(records(&out("few")), whole, "{goes_on}, three rows at a time on one thread");

        succeeds(&["train", text(&config), "--out", text(&out("resumed")), "--set", "steps=2"]);
        succeeds(&["train", "--resume", text(&out("resumed")), "--set", "steps=3"]);
        assert_eq!(records(&out("resumed"))[2..], whole[2..], "{goes_on}, resumed");
    }
}
