//! `reckon verify` with verifiers of one's own: the examples, the template, and a program that links its own.

use std::path::Path;
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn run(program: &str, folder: &Path, arguments: &[&str]) -> Output {
    Command::new(program).current_dir(folder).args(arguments).output().unwrap()
}

/// What a run printed, on both streams, and whether it succeeded.
fn said(output: &Output) -> (bool, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

fn reckon(folder: &Path, line: &str) -> (bool, String) {
    let arguments: Vec<&str> = ["verify"].into_iter().chain(line.split(' ')).collect();
    said(&run(env!("CARGO_BIN_EXE_reckon"), folder, &arguments))
}

#[test]
fn the_example_verifiers_pass_their_cases() {
    for (line, cases) in [
        ("units.cases.jsonl --kind python --set entry=examples/verifiers/units.py:verify", 5),
        ("balanced.cases.jsonl --kind command --set command=[\"sh\",\"examples/verifiers/balanced.sh\"]", 3),
    ] {
        let (ok, text) = reckon(Path::new(ROOT), &format!("test examples/verifiers/{line}"));
        assert!(ok && text.contains(&format!("all {cases} cases pass")), "{line}: {text}");
    }
}

#[test]
fn the_template_works_at_once_and_its_failures_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let (ok, text) = reckon(folder.path(), "new chem");
    assert!(ok, "{text}");
    let command = text.lines().last().unwrap().trim().strip_prefix("reckon verify ").unwrap();
    let (ok, text) = reckon(folder.path(), command);
    assert!(ok && text.contains("all 4 cases pass"), "{text}");
    assert!(std::fs::read_to_string(folder.path().join("chem.py")).unwrap().contains("entry = \"chem.py:verify\""));

    let wrong = "{\"answer\": \"42\", \"completion\": \"Answer: 41\", \"reward\": 1}\n";
    std::fs::write(folder.path().join("wrong.jsonl"), wrong).unwrap();
    let (ok, text) = reckon(folder.path(), "test wrong.jsonl --kind python --set entry=chem.py:verify");
    assert!(!ok && text.contains("line 1: expected 1, got 0 (Fail: )"), "{text}");
    assert!(text.contains("error: 1 of 1 cases fail"), "{text}");
    let (ok, text) = reckon(folder.path(), "score wrong.jsonl --kind python --set entry=chem.py:verify --json");
    assert!(ok && text.contains("\"parsed\":\"41\""), "{text}");

    let (ok, text) = reckon(folder.path(), "new chem");
    assert!(!ok && text.contains("chem.py exists"), "{text}");
    let (ok, text) = reckon(folder.path(), "new ../chem");
    assert!(!ok && text.contains("cannot be called \"../chem\""), "{text}");
}

#[test]
fn a_program_of_ones_own_links_a_verifier_in_rust() {
    // Cargo builds the examples beside this test, one folder up.
    let deps = std::env::current_exe().unwrap();
    let program = deps.parent().unwrap().with_file_name("examples").join("custom_verifier");
    let program = program.to_str().unwrap();
    let folder = Path::new(ROOT).join("examples/custom_verifier");
    let options = ["--kind", "rust", "--set", "verifier=palindrome", "--set", "options={min_letters = 3}"];
    let (ok, text) = said(&run(program, &folder, &[&["verify", "test", "cases.jsonl"], &options[..]].concat()));
    assert!(ok && text.contains("all 3 cases pass"), "{text}");

    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("run");
    let (ok, text) = said(&run(program, &folder, &["train", "config.toml", "--out", out.to_str().unwrap()]));
    assert!(ok, "{text}");
    let records = reckon::metrics::read(&out.join("metrics.jsonl")).unwrap();
    assert_eq!(records.last().unwrap().step, 2);
    assert!(records[2].get("reward/palindrome").is_some());

    let (ok, text) = reckon(&folder, &format!("test cases.jsonl {}", options[..4].join(" ")));
    assert!(!ok && text.contains("no verifier `palindrome` is linked into this program"), "{text}");
}
