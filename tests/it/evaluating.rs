//! Evaluations in a run: further sets, settings of their own, what they decide, and how long a run is.

use std::path::{Path, PathBuf};

use reckon::metrics::Record;
use serde_json::Value;

use crate::program::{fails, records, small_run, succeeds, text};

/// A small run with this `[eval]` table.
pub(crate) fn with_eval(folder: &Path, steps: usize, more: &str, eval: &str) -> PathBuf {
    let config = small_run(folder, steps, more);
    let written = std::fs::read_to_string(&config).unwrap().replace("eval = {problems = 10, every = 2}", "");
    std::fs::write(&config, format!("{written}\n[eval]\n{eval}")).unwrap();
    config
}

fn get(record: &Record, name: &str) -> f64 {
    record.get(name).unwrap_or_else(|| panic!("{name} is not recorded"))
}

#[test]
fn further_sets_have_numbers_of_their_own_and_one_of_them_says_what_is_best() {
    let folder = tempfile::tempdir().unwrap();
    let eval = "problems = 6\nsamples = 2\nevery = 1\ntemperature = 0.7\nbest_by = 'hard/maj@3'
        [[eval.sets]]\nname = 'hard'\ndata = {dataset = 'countdown', problems = {value_max = 12}}
        problems = 5\nsamples = 3\n[[eval.sets]]\nname = 'left'\ndata = {dataset = 'countdown'}\nproblems = 0";
    let config = with_eval(folder.path(), 2, "", eval);
    let run = folder.path().join("run");
    let shown = succeeds(&["train", text(&config), "--out", text(&run)]);
    assert!(shown.contains("accuracy"), "{shown}");
    let records = records(&run);
    for record in &records {
        for name in ["pass@1", "pass@2", "maj@2", "hard/pass@1", "hard/pass@2", "hard/pass@3", "hard/maj@3"] {
            assert!((0.0..=1.0).contains(&get(record, &format!("eval/{name}"))), "{name}");
        }
        assert!(record.get("eval/left/pass@1").is_none() && record.get("eval/pass@4").is_none());
        assert!(get(record, "eval/hard/pass@3") >= get(record, "eval/hard/pass@1"));
    }
    let model = run.join("checkpoints/step-000002");
    let on = |more: &[&str]| -> Value {
        let arguments = [&["eval", text(&config), "--model", text(&model), "--json"], more].concat();
        serde_json::from_str(&succeeds(&arguments)).unwrap()
    };
    assert_eq!(on(&[])["pass@1"].as_f64(), records[2].get("eval/pass@1"));
    assert_eq!(on(&["--on", "hard"])["pass@1"].as_f64(), records[2].get("eval/hard/pass@1"));
    let complaint = fails(&["eval", text(&config), "--on", "soft"]);
    assert!(complaint.contains("--on soft: no such set among eval.sets (hard, left)"), "{complaint}");
    let state = std::fs::read_to_string(run.join("checkpoints/step-000002/trainer.json")).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    let best = state["progress"]["best"][0].as_f64().unwrap();
    assert_eq!(best, get(&records[1], "eval/hard/maj@3").max(get(&records[2], "eval/hard/maj@3")));
}

#[test]
fn a_run_ends_when_nothing_gets_better_and_can_be_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let config = with_eval(folder.path(), 9, "optim = {lr = 1e-12}", "problems = 4\nevery = 1\npatience = 2");
    let run = folder.path().join("run");
    assert!(succeeds(&["train", text(&config), "--out", text(&run), "--set", "save.every=50"]).contains("before"));
    // The first evaluation is the best so far; two more are not better.
    assert_eq!(records(&run).last().unwrap().step, 3);
    assert!(succeeds(&["train", "--resume", text(&run)]).contains("before"), "it is over");
    assert_eq!(records(&run).last().unwrap().step, 3);
    succeeds(&["train", "--resume", text(&run), "--set", "eval.patience=0", "--set", "steps=5"]);
    assert_eq!(records(&run).last().unwrap().step, 5);
}

#[test]
fn a_run_that_is_over_goes_on_beyond_its_end_as_a_longer_one_would_have() {
    let folder = tempfile::tempdir().unwrap();
    let config = small_run(folder.path(), 2, "");
    let (short, long) = (folder.path().join("short"), folder.path().join("long"));
    succeeds(&["train", text(&config), "--out", text(&short)]);
    succeeds(&["train", text(&config), "--out", text(&long), "--set", "steps=4"]);
    succeeds(&["train", "--resume", text(&short), "--set", "steps=4"]);
    assert_eq!(records(&short), records(&long));
}

#[test]
fn epochs_are_passes_over_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows.jsonl");
    let lines = (1..=10).map(|n| format!("{{\"question\": \"{n},2,3:6\", \"answer\": \"{n}\"}}\n"));
    std::fs::write(&rows, lines.collect::<String>()).unwrap();
    let config = small_run(folder.path(), 2, "");
    let data = format!("data.path='{}'", text(&rows));
    let file = ["data.dataset=file", &data, "data.held_out=0.0", "rubric.verifiers.0.kind=exact", "eval.problems=0"];
    let sets = |more: &[&str]| -> Vec<String> {
        file.iter().chain(more).flat_map(|set| ["--set".to_owned(), (*set).to_owned()]).collect()
    };
    let dry = |more: &[&str]| -> Vec<String> {
        [vec!["train".to_owned(), text(&config).to_owned(), "--dry-run".to_owned()], sets(more)].concat()
    };
    let run = |arguments: &[String]| succeeds(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    // One and a half passes over 10 rows, 4 a step.
    let printed = run(&dry(&["steps=0", "epochs=1.5"]));
    assert!(printed.contains("steps = 4\n") && !printed.contains("epochs"), "{printed}");
    for (arguments, expected) in [
        (&["--set", "epochs=2"][..], "steps = 2: epochs = 2 says so too; remove one"),
        (&["--set", "epochs=2", "--set", "steps=0"], "have no end to pass over; give steps"),
        (&["--set", "steps=0"], "steps = 0: it must be at least 1, or give epochs"),
        (&["--set", "epochs=-1", "--set", "steps=0"], "epochs = -1: it must be above 0"),
    ] {
        let complaint = fails(&[&["train", text(&config), "--dry-run"], arguments].concat());
        assert!(complaint.contains(expected), "{complaint}");
    }
}
