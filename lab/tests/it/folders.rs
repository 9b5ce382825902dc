use std::fs;
use std::path::Path;

use reckon_lab::arms::Study;
use reckon_lab::report::{Options, Report};
use reckon_lab::run::Run;
use reckon_lab::transcripts;

use crate::made_up::{ARMS, Size, run};

const SMALL: Size = Size { seeds: 1, steps: 20, groups: 2, group_size: 3, problems: 6 };

fn page(folder: &Path) -> String {
    let mut study = Study::read(&[folder.to_str().unwrap().to_owned()]).unwrap();
    Report::of(&mut study, &Options { meaning: &|_| None, live: false }).unwrap().page()
}

#[test]
fn a_whole_run_is_read_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), ARMS[0], 7, SMALL);
    let read = Run::read(folder.path()).unwrap();
    assert_eq!(read.steps, (0..=20).collect::<Vec<_>>());
    assert_eq!((read.seed(), read.steps_asked(), read.remarks.len()), (7, Some(20), 0));
    assert!(read.series["reward/mean"][0].is_nan() && read.series["reward/mean"][1].is_finite());
    assert_eq!(
        read.points("eval/pass@1").map(|(step, _)| step).collect::<Vec<_>>(),
        (0..=20).step_by(2).collect::<Vec<_>>()
    );
    let groups = transcripts::read(&transcripts::files(folder.path())[1].1, &mut Vec::new()).unwrap();
    assert_eq!((groups.len(), groups[0].rollouts.len()), (2, 3));
    assert!(!groups[0].rollouts[0].by_token.logprobs.is_empty());
}

#[test]
fn a_run_that_was_killed_within_any_byte_of_a_line_makes_a_report() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), ARMS[0], 1, SMALL);
    let metrics = folder.path().join("metrics.jsonl");
    let whole = fs::read(&metrics).unwrap();
    let third = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(2).unwrap().0;
    for cut in third..third + 200 {
        fs::write(&metrics, &whole[..cut]).unwrap();
        let read = Run::read(folder.path()).unwrap();
        // A line that lacks only its end is whole.
        assert_eq!(read.steps, [0, 1, 2], "cut at {cut}");
    }
    fs::write(&metrics, &whole[..third + 30]).unwrap();
    assert!(Run::read(folder.path()).unwrap().remarks[0].contains("was cut"));
    let rollouts = folder.path().join("rollouts/step-000011.jsonl");
    let text = fs::read(&rollouts).unwrap();
    fs::write(&rollouts, &text[..text.len() - 40]).unwrap();
    fs::write(folder.path().join("evals/step-000002.json"), "{\"judged\": [").unwrap();
    assert!(page(folder.path()).contains("the last line of step-000011.jsonl was cut"));
}

#[test]
fn a_run_that_was_killed_before_anything_was_written_makes_a_report() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.toml"), "seed = 1\nsteps = 5\n").unwrap();
    assert!(page(folder.path()).contains("there are no metrics yet"));
    fs::write(folder.path().join("metrics.jsonl"), "").unwrap();
    fs::write(folder.path().join("config.toml"), "seed = 1\nste").unwrap();
    assert!(page(folder.path()).contains("config.toml is not TOML"));
}

#[test]
fn damaged_lines_are_left_out_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "{\"step\":1,\"a\":1}\nnonsense\n{\"step\":2,\"a\":null}\n\u{0}\n{\"step\":1,\"a\":7.5}\n{\"a\":1}\n";
    fs::write(folder.path().join("metrics.jsonl"), lines).unwrap();
    let read = Run::read(folder.path()).unwrap();
    assert_eq!(read.steps, [1, 2]);
    assert_eq!(read.series["a"][0], 7.5, "a step that was written again");
    assert!(read.series["a"][1].is_nan());
    assert_eq!(read.remarks.iter().filter(|remark| remark.contains("is no record")).count(), 2, "{:?}", read.remarks);
}

#[test]
fn a_folder_without_a_run_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let error = Study::read(&[folder.path().to_str().unwrap().to_owned()]).unwrap_err();
    assert!(error.to_string().contains("name a folder with a config.toml"), "{error}");
}
