//! Whoever reads what the program prints may go away: a listing ends quietly, and a run goes on.

use std::fs::File;
use std::io::pipe;
use std::process::{Output, Stdio};

use crate::program::{errors, reckon, records, small_run, text};

/// The end of a pipe that nobody reads from.
fn closed() -> Stdio {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    writer.into()
}

fn run(arguments: &[&str], out: Stdio) -> Output {
    reckon(arguments).stdout(out).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn a_listing_that_nobody_reads_to_its_end_ends_quietly_and_a_full_disk_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (config, rows) = (small_run(folder.path(), 1, ""), folder.path().join("rows.jsonl"));
    std::fs::write(&rows, "{\"completion\": \"<answer>1</answer>\", \"answer\": \"1\"}\n".repeat(3)).unwrap();
    for arguments in [
        &["data", "show", text(&config)][..],
        &["data", "check", text(&config)],
        &["verify", "score", text(&rows), "--kind", "exact"],
        &["verify", "score", text(&rows), "--kind", "exact", "--json"],
        &["verify", "audit", text(&config), "--rows", "3"],
        &["config"],
        &["metrics"],
        &["metrics", "--markdown"],
        &["doctor"],
        &["plan", text(&config), "--memory", "64GiB"],
        &["train", text(&config), "--dry-run"],
        &["sample", "1,2,3:6", "--max-new-tokens", "4", "--samples", "3"],
    ] {
        let output = run(arguments, closed());
        assert_eq!((output.status.code(), errors(&output).as_str()), (Some(0), ""), "{arguments:?}");
        let output = run(arguments, File::create("/dev/full").unwrap().into());
        let complaint = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {complaint}");
        assert!(complaint.starts_with("error: cannot write to standard output: No space left"), "{complaint}");
    }
    for arguments in [&["--help"][..], &["train", "--help"], &["--version"]] {
        let output = run(arguments, closed());
        assert!(!errors(&output).contains("panicked"), "{arguments:?}: {}", errors(&output));
    }
}

#[test]
fn a_run_whose_remarks_nobody_reads_trains_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let config = small_run(folder.path(), 3, "");
    for (name, remarks) in [("closed", closed()), ("full", File::create("/dev/full").unwrap().into())] {
        let out = folder.path().join(name);
        let status =
            reckon(&["train", text(&config), "--out", text(&out)]).stdout(closed()).stderr(remarks).status().unwrap();
        assert!(status.success(), "{name}: {status}");
        assert_eq!(records(&out).last().unwrap().step, 3);
        assert!(out.join("checkpoints/step-000003/trainer.json").exists());
    }
    let status = reckon(&["train", "no/such.toml"]).stdout(closed()).stderr(closed()).status().unwrap();
    assert_eq!(status.code(), Some(1), "an error that nobody reads is one all the same");
}
