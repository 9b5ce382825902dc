//! Rows that are remembered: the hopeless rest, and a resumed run asks the same.

use std::path::{Path, PathBuf};

use reckon::metrics::Record;

use crate::program::{fails, records, small_run, succeeds, text};

/// A run over ten rows that the model never gets right, four a step.
pub(crate) fn hopeless(folder: &Path, steps: usize) -> PathBuf {
    let rows = folder.join("rows.jsonl");
    let lines = (1..=10).map(|n| format!("{{\"question\": \"{n},2,3:6\", \"answer\": \"never\"}}\n"));
    std::fs::write(&rows, lines.collect::<String>()).unwrap();
    let config =
        small_run(folder, steps, "grpo = {drop_zero_signal = false}\ncurriculum = {rest_after = 1, rest_steps = 9}");
    let data = format!(
        "data = {{dataset = 'file', path = '{}', held_out = 0.0}}\nprompt = {{template = '{{question}} '}}",
        text(&rows)
    );
    let written = std::fs::read_to_string(&config).unwrap();
    let written =
        written.replace("data = {dataset = 'countdown'}", &data).replace("kind = 'countdown'", "kind = 'exact'");
    std::fs::write(&config, written.replace("problems = 10", "problems = 0")).unwrap();
    config
}

fn counts(records: &[Record], name: &str) -> Vec<f64> {
    records[1..].iter().map(|record| record.get(name).unwrap_or_else(|| panic!("{name} is not recorded"))).collect()
}

#[test]
fn hopeless_rows_rest_and_a_resumed_run_remembers_them() {
    let folder = tempfile::tempdir().unwrap();
    let config = hopeless(folder.path(), 4);
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    succeeds(&["train", text(&config), "--out", text(&whole)]);
    let found = records(&whole);
    // Four, eight, then the last two and two of those that rest; all ten rest then.
    assert_eq!(counts(&found, "curriculum/seen"), [4.0, 8.0, 10.0, 10.0]);
    assert_eq!(counts(&found, "curriculum/resting"), [4.0, 8.0, 10.0, 10.0]);
    assert_eq!(counts(&found, "curriculum/hard_frac"), [1.0; 4]);
    assert!(counts(&found, "curriculum/passed_over")[2] > 0.0);
    succeeds(&["train", text(&config), "--out", text(&cut), "--set", "steps=2"]);
    succeeds(&["train", "--resume", text(&cut), "--set", "steps=4"]);
    assert_eq!(records(&cut), found);
}

#[test]
fn a_curriculum_changes_what_is_asked_and_is_refused_where_nothing_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let config = hopeless(folder.path(), 3);
    let run = |order: &str| {
        let out = folder.path().join(order);
        let order = format!("curriculum.order={order}");
        succeeds(&["train", text(&config), "--out", text(&out), "--set", &order, "--set", "curriculum.rest_after=0"]);
        records(&out)
    };
    let balanced = run("balanced");
    // Rows not asked yet are at 1/2, hopeless ones below: all ten are asked before one comes again.
    assert_eq!(counts(&balanced, "curriculum/seen"), [4.0, 8.0, 10.0]);
    assert_eq!(counts(&run("easy_to_hard"), "curriculum/seen"), [4.0, 8.0, 10.0], "they are easier than hopeless ones");
    let generated = small_run(folder.path(), 2, "curriculum = {order = 'balanced'}");
    let complaint = fails(&["train", text(&generated), "--dry-run"]);
    assert!(complaint.contains("generated problems do not come again"), "{complaint}");
    let again = small_run(folder.path(), 3, "curriculum = {order = 'balanced', rows = 6}");
    let out = folder.path().join("again");
    succeeds(&["train", text(&again), "--out", text(&out)]);
    assert_eq!(counts(&records(&out), "curriculum/seen")[2], 6.0, "all six have been asked");
}
