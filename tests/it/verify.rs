//! `reckon verify`: audits of rubric and data, replays of runs, and measured verdicts, as a user calls them.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

/// Runs the binary in `folder`: whether it succeeded, what it printed, and what it complained of.
fn reckon(folder: &Path, arguments: &[&str]) -> (bool, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_reckon")).args(arguments).current_dir(folder).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.success(), text(stdout), text(stderr))
}

/// A folder with `config.toml` and `rows.jsonl` for a rubric.
fn folder(rubric: &str, rows: &[Value]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "steps = 2\nmodel = {{path = 'builtin:countdown'}}\ndata = {{dataset = 'file', path = 'rows.jsonl', held_out = 'rows.jsonl'}}
        rollout = {{prompts_per_step = 2, group_size = 3, max_new_tokens = 16}}
        eval = {{problems = 0}}\nsave = {{rollouts_every = 1}}\n{rubric}"
    );
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    let rows: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    folder
}

const NUMERIC: &str = "[[rubric.verifiers]]\nkind = 'numeric'\n[[rubric.verifiers]]\nkind = 'format'\n";

fn sums() -> Vec<Value> {
    (1..9).map(|n| json!({"question": format!("{n},{n}:{}", 2 * n), "answer": 2 * n})).collect()
}

#[test]
fn a_sound_config_passes_the_audit() {
    let folder = folder(NUMERIC, &sums());
    let (good, table, complaint) = reckon(folder.path(), &["verify", "audit", "config.toml"]);
    assert!(good && table.contains("reference answers pass") && table.contains("8 of 8"), "{table}{complaint}");
    let (good, json, _) = reckon(folder.path(), &["verify", "audit", "config.toml", "--rows", "3", "--json"]);
    let audit: Value = serde_json::from_str(&json).unwrap();
    assert!(good && audit["rows"] == 3 && audit["findings"][1]["failed"] == 0, "{audit}");
    // The embedded config, whose data are generated.
    let (good, json, complaint) = reckon(folder.path(), &["verify", "audit", "--rows", "50", "--json", "--held-out"]);
    assert!(good && serde_json::from_str::<Value>(&json).unwrap()["without_reference"] == 0, "{complaint}");
}

#[test]
fn an_audit_fails_with_the_claim_and_an_example() {
    let mut rows = sums();
    rows.push(json!({"question": "9,9:18", "answer": "eighteen"}));
    let folder = folder(NUMERIC, &rows);
    let (good, table, complaint) = reckon(folder.path(), &["verify", "audit", "config.toml"]);
    assert!(!good && complaint.contains("it does not hold that rows can be judged"), "{complaint}");
    assert!(table.contains("8 of 9") && table.contains("rows-9") && table.contains("eighteen"), "{table}");
}

#[test]
fn a_run_whose_references_fail_is_refused_until_it_is_allowed() {
    // A whole completion cannot both be the bare answer and hold a block.
    let apart =
        "[[rubric.verifiers]]\nkind = 'exact'\nextract = {from = 'whole'}\n[[rubric.verifiers]]\nkind = 'format'\n";
    let folder = folder(apart, &sums());
    let train = |more: &[&str]| reckon(folder.path(), &[&["train", "config.toml"], more].concat());
    let (good, _, complaint) = train(&["--out", "refused"]);
    assert!(!good && complaint.contains("it does not hold that reference answers pass: 8 of 8 rows"), "{complaint}");
    assert!(complaint.contains("audit.max_failed") && complaint.contains("audit.rows = 0"), "{complaint}");
    for (out, set) in [("lowered", "audit.max_failed=1.0"), ("off", "audit.rows=0")] {
        let (good, _, complaint) = train(&["--out", out, "--set", set]);
        assert!(good && complaint.contains("audit: it does not hold") == (out == "lowered"), "{complaint}");
    }
}

#[test]
fn a_run_that_would_reward_nothing_is_refused() {
    let folder = folder("[[rubric.verifiers]]\nkind = 'regex'\npattern = '.*'\nextract = {from = 'whole'}\n", &sums());
    let (good, _, complaint) = reckon(folder.path(), &["train", "config.toml"]);
    assert!(!good && complaint.contains("it does not hold that empty completions fail"), "{complaint}");
}

#[test]
fn a_replay_gives_the_same_verdicts_or_says_which_differ() {
    let digits = "[[rubric.verifiers]]\nkind = 'regex'\npattern = '[a-m]|[0-9]'\nmatch = 'search'\n\
                  extract = {from = 'whole'}\n[[rubric.verifiers]]\nkind = 'repetition'\nn = 1\n";
    let folder = folder(digits, &sums());
    // All completions are cut: by default a cut one is worth nothing, whatever the rubric says.
    for (out, set, replaced) in [
        ("run", "grpo.truncated=mask", false),
        ("cut", "grpo.truncated=zero", true),
        ("coin", "control=coin_flip", true),
    ] {
        let (good, _, complaint) = reckon(folder.path(), &["train", "config.toml", "--out", out, "--set", set]);
        assert!(good, "{complaint}");
        let (good, json, complaint) = reckon(folder.path(), &["verify", "replay", out, "--json"]);
        let replay: Value = serde_json::from_str(&json).unwrap();
        assert!(good && replay["rollouts"] == 12 && replay["reproduced"] == 12, "{replay}{complaint}");
        assert_eq!(replay["steps"], json!([1, 2]));
        assert_eq!(replay["replaced"] != 0, replaced, "{out}: {replay}");
    }
    let config = folder.path().join("run/config.toml");
    let changed = std::fs::read_to_string(&config).unwrap().replace("n = 1\n", "n = 2\n");
    std::fs::write(&config, changed).unwrap();
    let (good, text, complaint) = reckon(folder.path(), &["verify", "replay", "run"]);
    assert!(!good && complaint.contains("of 12 rollouts were judged differently"), "{complaint}");
    assert!(text.contains("of 12 rollouts of 2 steps reproduced") && text.contains("was "), "{text}");
}

#[test]
fn a_run_without_saved_rollouts_cannot_be_replayed() {
    let folder = folder(NUMERIC, &sums());
    std::fs::create_dir(folder.path().join("rollouts")).unwrap();
    let (good, _, complaint) = reckon(folder.path(), &["verify", "replay", "."]);
    assert!(!good && complaint.contains("save.rollouts_every"), "{complaint}");
}

#[test]
fn a_bench_measures_a_config_or_a_file() {
    let folder = folder(NUMERIC, &sums());
    let row = json!({"answer": "4", "completion": "<answer>4</answer>"});
    std::fs::write(folder.path().join("scored.jsonl"), format!("{row}\n")).unwrap();
    for (what, passed) in [
        (&["config.toml", "--batch", "1"][..], 100),
        (&["config.toml", "--batch", "100"], 100),
        (&["--kind", "numeric", "--file", "scored.jsonl"], 300),
    ] {
        let arguments = [&["verify", "bench", "--verdicts", "300", "--json"], what].concat();
        let (good, json, complaint) = reckon(folder.path(), &arguments);
        assert!(good, "{complaint}");
        let bench: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&bench["verdicts"], &bench["passed"]), (&json!(300), &json!(passed)), "{bench}");
        let time = |name: &str| bench[name].as_f64().unwrap();
        assert!(0.0 < time("p50_us") && time("p50_us") <= time("p99_us") && time("p99_us") <= time("max_us"));
        assert!(time("verdicts_per_s") > 0.0);
    }
    let (good, _, complaint) = reckon(folder.path(), &["verify", "bench", "--kind", "numeric"]);
    assert!(!good && complaint.contains("--file"), "{complaint}");
    let (good, text, _) = reckon(folder.path(), &["verify", "bench", "--verdicts", "9", "--set", "seed=3"]);
    assert!(good && text.contains("9 verdicts"), "{text}");
}

#[test]
fn rows_that_cannot_be_judged_hide_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "{\"answer\": \"two\", \"completion\": \"<answer>2</answer>\"}\n\
                {\"answer\": [\"five\", 5], \"completion\": \"<answer>5</answer>\"}\n\
                {\"answer\": 123456789012345678901234567890, \"completion\": \"<answer>123456789012345678901234567891</answer>\", \"x\": NaN}\n\
                {\"answer\": 1.50, \"completion\": \"<answer>1.5</answer>\"}\n";
    std::fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    let score = |more: &[&str]| {
        let arguments = [&["verify", "score", "--kind", "numeric", "rows.jsonl"][..], more].concat();
        let output = Command::new(env!("CARGO_BIN_EXE_reckon"))
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (said, complained) = score(&[]);
    assert_eq!(said, "2 of 3 pass\n");
    assert!(complained.contains("`line 1`") && complained.contains("1 of 4 rows cannot be judged"), "{complained}");
    let (said, _) = score(&["--json"]);
    let outcomes: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(outcomes[0]["error"].as_str().unwrap().contains("\"two\" is not a number"));
    assert_eq!(outcomes[1..].iter().map(|o| o["reward"].as_f64().unwrap()).collect::<Vec<_>>(), [1.0, 0.0, 1.0]);
}
