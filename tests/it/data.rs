//! Runs on mixtures of sources resume exactly and refuse changed files; wrong data is told in one line before step 0.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn reckon(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_reckon")).args(arguments).current_dir(folder).output().unwrap()
}

fn succeed(arguments: &[&str], folder: &Path) -> String {
    let output = reckon(arguments, folder);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The one line that a failing command prints.
fn fail(arguments: &[&str], folder: &Path) -> String {
    let output = reckon(arguments, folder);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

fn metrics(run: &Path) -> Vec<reckon::metrics::Record> {
    let records = reckon::metrics::read(&run.join("metrics.jsonl")).unwrap();
    records.iter().map(reckon::metrics::Record::without_timings).collect()
}

const HEAD: &str = "
steps = 2
model = {path = 'builtin:countdown'}
prompt = {template = '{question} '}
rollout = {prompts_per_step = 4, group_size = 3, max_new_tokens = 24}
eval = {problems = 0}
save = {every = 2}
optim = {lr = 1e-3}
[[rubric.verifiers]]
kind = 'regex'
pattern = '1'
match = 'search'
extract = {from = 'whole'}
";

const MIXTURE: &str = "
[data]
dataset = 'mixture'
[[data.sources]]
from = {dataset = 'countdown'}
weight = 2
[[data.sources]]
name = 'sums'
from = {dataset = 'file', path = 'sums.jsonl', held_out = 0.3}
prompt = {template = '{question}:', prefill = '<think>'}
[[data.sources.rubric.verifiers]]
kind = 'regex'
name = 'thinks'
pattern = '<think>'
match = 'search'
extract = {from = 'whole'}
[[data.sources]]
from = {dataset = 'multiplication', problems = {digits_max = 2}}
";

/// A folder with `config.toml` and `sums.jsonl`.
fn workplace(data: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), format!("{HEAD}{data}")).unwrap();
    let sums: String = (0..9).map(|i| format!("{{\"question\": \"{i}+1\", \"answer\": {}}}\n", i + 1)).collect();
    std::fs::write(folder.path().join("sums.jsonl"), sums).unwrap();
    folder
}

/// Makes a finished run of 2 steps one of 4 that was interrupted.
fn want_four_steps(run: &Path) {
    let config: PathBuf = run.join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains("steps = 2\n"));
    std::fs::write(config, text.replace("steps = 2\n", "steps = 4\n")).unwrap();
}

#[test]
fn a_run_on_a_mixture_resumes_to_the_bit_and_refuses_a_changed_file() {
    let folder = workplace(MIXTURE);
    let folder = folder.path();
    succeed(&["train", "config.toml", "--set", "steps=4", "--out", "straight"], folder);
    succeed(&["train", "config.toml", "--out", "halves"], folder);
    want_four_steps(&folder.join("halves"));

    let sums = std::fs::read_to_string(folder.join("sums.jsonl")).unwrap();
    std::fs::write(folder.join("sums.jsonl"), sums.replace("\"answer\": 5", "\"answer\": 6")).unwrap();
    let message = fail(&["train", "--resume", "halves"], folder);
    assert!(message.contains("the rows of data source \"sums\" are not those the run began with"), "{message}");

    std::fs::write(folder.join("sums.jsonl"), sums).unwrap();
    succeed(&["train", "--resume", "halves"], folder);
    assert_eq!(metrics(&folder.join("halves")), metrics(&folder.join("straight")));
    for file in ["model.safetensors", "trainer.safetensors", "trainer.json"] {
        let read = |run: &str| std::fs::read(folder.join(run).join("checkpoints/step-000004").join(file)).unwrap();
        assert!(read("halves") == read("straight"), "{file} differs");
    }
    // The prefilled start counts as completion, in the rubric of its own source.
    let thinks: Vec<f64> = metrics(&folder.join("straight")).iter().filter_map(|r| r.get("reward/thinks")).collect();
    assert!(thinks.contains(&1.0), "{thinks:?}");
}

#[test]
fn wrong_data_is_told_in_one_line_before_step_0() {
    let file = |path: &str| format!("[data]\ndataset = 'file'\npath = '{path}'\n");
    for (data, rows, expected) in [
        (file("rows.jsonl"), "{\"a\": 1}", "rows.jsonl, line 1: no known shape has the columns a"),
        (file("rows.jsonl"), "{\"question\": \"a\", \"answer\": \"\"}", "line 1: column \"answer\" is empty"),
        (file("rows.parquet"), "PAR1 and no more", "rows.parquet: it is no Parquet file, or a damaged one"),
        (
            file(concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/tests/data/gsm8k.parquet"))
                + "columns = {question = 'problem', answer = 'answer'}\n",
            "",
            "no column \"problem\"; the row has: question, answer",
        ),
        (file("absent.jsonl"), "", "cannot read absent.jsonl"),
        (
            file("rows.jsonl") + "columns = {question = 'q', answer = 'a'}\n",
            "{\"question\": \"a\", \"answer\": \"b\"}",
            "no column \"q\"; the row has: question, answer",
        ),
        (
            file("rows.jsonl") + "held_out = 1\n",
            "{\"question\": \"a\", \"answer\": \"b\"}",
            "held_out = 1: a share from 0 to below 1",
        ),
        ("[data]\ndataset = 'countdwn'\n".to_owned(), "", "did you mean \"countdown\"?"),
        (
            "[data]\ndataset = 'mixture'\n[[data.sources]]\nweight = 0\nfrom = {dataset = 'parity'}\n".to_owned(),
            "",
            "weight = 0",
        ),
        (
            "[data]\ndataset = 'countdown'\nproblems = {numbers = 9}\n".to_owned(),
            "",
            "numbers = 9..=9: a range within 2..=6",
        ),
    ] {
        let folder = workplace(&data);
        let folder = folder.path();
        std::fs::write(folder.join("rows.jsonl"), rows).unwrap();
        std::fs::write(folder.join("rows.parquet"), rows).unwrap();
        for command in [&["train", "config.toml", "--out", "run"][..], &["data", "check", "config.toml"]] {
            let message = fail(command, folder);
            assert!(message.contains(expected), "{message}");
        }
        assert!(!folder.join("run").exists(), "nothing is written before the data is known to be good");
    }
}

#[test]
fn the_data_of_a_run_can_be_looked_at_without_training() {
    let folder = workplace(MIXTURE);
    let folder = folder.path();
    let text = succeed(&["data", "check", "config.toml"], folder);
    for part in [
        "countdown-0: countdown of targets in 1..=99",
        "sums: question and answer",
        "share of prompts  0.250",
        "rows, prompts of 5 to 5, median 5 tokens",
        "fingerprint",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let one = succeed(&["data", "show", "config.toml", "--count", "1", "--from", "3"], folder);
    let four = succeed(&["data", "show", "config.toml", "--count", "4"], folder);
    assert!(four.ends_with(&one) && four.matches("--- answer: ").count() == 4, "{four}");
    let held = succeed(&["data", "show", "config.toml", "--count", "40", "--held-out"], folder);
    assert!(held.contains("held-out-0") && held.contains("--- sums, sums-"), "{held}");
}

#[test]
fn an_example_that_its_verifier_cannot_judge_is_found_by_a_check() {
    let folder = workplace("[data]\ndataset = 'file'\npath = 'sums.jsonl'\nheld_out = 0.3\n");
    let path = folder.path().join("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("[data]", "[[rubric.verifiers]]\nkind = 'numeric'\n[data]")).unwrap();
    succeed(&["data", "check", "config.toml"], folder.path());
    std::fs::write(folder.path().join("sums.jsonl"), "{\"question\": \"1+1\", \"answer\": \"two\"}\n".repeat(2))
        .unwrap();
    let message = fail(&["data", "check", "config.toml", "--set", "data.held_out=sums.jsonl"], folder.path());
    assert!(message.contains("sums-1") && message.contains("two"), "{message}");
}

#[test]
fn supervised_steps_learn_the_completions_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let rows: String = (1..9).map(|i| format!("{{\"prompt\": \"{i}\", \"completion\": \"={i}\"}}\n")).collect();
    std::fs::write(folder.join("rows.jsonl"), rows).unwrap();
    let config = "steps = 60\ntokens_per_step = 40\nmodel = {path = 'builtin:countdown'}\noptim = {lr = 1e-3}\n\
                  data = {dataset = 'file', path = 'rows.jsonl'}\n";
    std::fs::write(folder.join("sft.toml"), config).unwrap();
    succeed(&["sft", "sft.toml", "--out", "model"], folder);
    let sampled = succeed(&["sample", "7", "--model", "model", "--temperature", "0"], folder);
    assert_eq!(sampled, "7=7\n");
}

const FILE: &str = "[data]\ndataset = 'file'\npath = 'sums.jsonl'\n";

/// A row whose question is longer than any context.
fn long(id: usize) -> String {
    format!("{{\"question\": \"{}\", \"answer\": {id}}}\n", format!("{id}+").repeat(4000))
}

#[test]
fn rows_longer_than_the_context_are_refused_or_left_out_wherever_they_stand() {
    let folder = workplace(FILE);
    let folder = folder.path();
    let sums = std::fs::read_to_string(folder.join("sums.jsonl")).unwrap();
    let many: String = (0..1200).map(|i| format!("{{\"question\": \"{i}-1\", \"answer\": {i}}}\n")).collect();
    std::fs::write(folder.join("far.jsonl"), many + &long(1)).unwrap();
    std::fs::write(folder.join("held.jsonl"), sums.clone() + &long(2)).unwrap();
    std::fs::write(folder.join("short.jsonl"), sums).unwrap();
    let eval = ["--set", "eval.problems=10", "--set", "eval.samples=1"];
    for (path, held_out, expected) in [
        ("far.jsonl", "short.jsonl", "1 of 1201 prompts of data source \"file-0\" are longer than"),
        ("short.jsonl", "held.jsonl", "1 of 10 held-out prompts of data source \"file-0\" are longer than"),
    ] {
        let sets = [format!("data.path={path}"), format!("data.held_out={held_out}")];
        let sets = ["--set", sets[0].as_str(), "--set", sets[1].as_str()];
        for command in
            [&["train", "config.toml", "--out", "run"][..], &["eval", "config.toml"], &["data", "check", "config.toml"]]
        {
            let command = [command, &sets, &eval].concat();
            let message = fail(&command, folder);
            assert!(message.contains(expected) && message.contains("data.long_prompts = \"drop\""), "{message}");
            let output = reckon(&[&command[..], &["--set", "data.long_prompts=drop"]].concat(), folder);
            let told = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success() && told.contains("rows are left out, whose prompts"), "{told}");
            let _ = std::fs::remove_dir_all(folder.join("run"));
        }
    }
    let config = "steps = 2\ntokens_per_step = 40\nmodel = {path = 'builtin:countdown'}\n\
                  data = {dataset = 'file', path = 'held.jsonl', held_out = 0}\n";
    std::fs::write(folder.join("sft.toml"), config).unwrap();
    let message = fail(&["sft", "sft.toml", "--out", "model"], folder);
    assert!(message.contains("1 of 10 samples are longer than"), "{message}");
    let drop = reckon(&["sft", "sft.toml", "--out", "model", "--set", "data.long_prompts=drop"], folder);
    assert!(drop.status.success() && String::from_utf8(drop.stderr).unwrap().contains("1 rows are left out"));
}

#[test]
fn a_few_rows_are_enough_where_nothing_is_evaluated() {
    let folder = workplace(FILE);
    let folder = folder.path();
    let five: String = (0..5).map(|i| format!("{{\"question\": \"{i}+1\", \"answer\": {}}}\n", i + 1)).collect();
    std::fs::write(folder.join("sums.jsonl"), five).unwrap();
    let none = ["--set", "data.held_out=0"];
    succeed(&[&["train", "config.toml", "--out", "run"][..], &none].concat(), folder);
    succeed(&[&["data", "check", "config.toml"][..], &none].concat(), folder);
    let eval = [&["eval", "config.toml", "--set", "eval.problems=3"][..], &none].concat();
    assert!(fail(&eval, folder).contains("no row is held out to evaluate on"));
}

#[test]
fn an_evaluation_leaves_out_what_cannot_be_judged_and_says_so() {
    let folder = workplace(FILE);
    let folder = folder.path();
    let config = std::fs::read_to_string(folder.join("config.toml")).unwrap();
    std::fs::write(
        folder.join("config.toml"),
        config.replace("[data]", "[[rubric.verifiers]]\nkind = 'numeric'\n[data]"),
    )
    .unwrap();
    let held = "{\"question\": \"1+1\", \"answer\": \"two\"}\n{\"question\": \"1+2\", \"answer\": 3}\n";
    std::fs::write(folder.join("held.jsonl"), held).unwrap();
    let sets = ["--set", "data.held_out=held.jsonl", "--set", "eval.problems=2", "--set", "eval.samples=1"];
    let output = reckon(&[&["eval", "config.toml"][..], &sets].concat(), folder);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("on 1 problems"));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("1 of 2 held-out rows cannot be judged") && told.contains("held-1"), "{told}");
}

#[test]
fn a_row_that_no_verifier_can_read_is_refused_before_step_0_wherever_it_stands() {
    let folder = workplace(FILE);
    let folder = folder.path();
    let config = std::fs::read_to_string(folder.join("config.toml")).unwrap();
    let numeric = config.replace("[data]", "[[rubric.verifiers]]\nkind = 'numeric'\n[data]");
    std::fs::write(folder.join("config.toml"), numeric).unwrap();
    let rows: String = (0..99).map(|i| format!("{{\"question\": \"{i}+1\", \"answer\": {}}}\n", i + 1)).collect();
    std::fs::write(folder.join("sums.jsonl"), rows + "{\"question\": \"1+1\", \"answer\": \"two\"}\n").unwrap();
    let sets = ["--set", "data.held_out=0", "--set", "eval.problems=0"];
    let output = reckon(&[&["train", "config.toml", "--out", "run"][..], &sets].concat(), folder);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("1 of 100 rows of data source") && message.contains("`sums-100`"), "{message}");
}

#[test]
fn pass_rates_are_measured_once_and_choose_the_rows_of_a_run() {
    let folder = workplace(&format!("{FILE}held_out = 0\n"));
    let folder = folder.path();
    let measure = ["data", "measure", "config.toml", "--samples", "4", "--out", "rates.jsonl"];
    succeed(&measure, folder);
    let whole = std::fs::read_to_string(folder.join("rates.jsonl")).unwrap();
    let rates: Vec<reckon::measure::Rate> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rates.len(), 9);
    assert!(rates.iter().all(|rate| rate.samples == 4 && rate.judged == 4 && rate.pass_rate.is_some()));
    // A kill leaves some rows and a part of a line.
    let cut = whole.lines().take(4).collect::<Vec<_>>().join("\n") + "\n{\"id\": \"sums-5\", \"pass";
    std::fs::write(folder.join("rates.jsonl"), cut).unwrap();
    succeed(&measure, folder);
    assert_eq!(std::fs::read_to_string(folder.join("rates.jsonl")).unwrap(), whole);
    let other = ["data", "measure", "config.toml", "--samples", "2", "--out", "rates.jsonl"];
    assert!(fail(&other, folder).contains("holds rates of builtin:countdown by 4 samples, not of"));

    let edited: String =
        (1..=9).map(|i| format!("{{\"id\": \"sums-{i}\", \"pass_rate\": {}}}\n", 0.1 * f64::from(i))).collect();
    std::fs::write(folder.join("rates.jsonl"), edited).unwrap();
    let chosen = ["--set", "data.rates=rates.jsonl", "--set", "data.only={pass_rate = '0.2..0.45'}"];
    let text = succeed(&[&["data", "check", "config.toml"][..], &chosen].concat(), folder);
    assert!(text.contains("trained on        3 rows"), "{text}");
    let wrong = ["--set", "data.only={pass_rate = 'high'}"];
    let message = fail(&[&["data", "check", "config.toml"][..], &wrong].concat(), folder);
    assert!(message.contains("only.pass_rate = \"high\""), "{message}");
}
