//! Every command does its work on real input, and says in one line what is wrong with bad input.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use reckon::metrics::{METRICS, Metric};
use serde_json::Value;

use crate::program::{base_config, errors, fails, reckon, records, small_run, succeeds, text};

#[test]
fn a_dry_run_prints_the_resolved_config_and_what_follows_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = small_run(folder.path(), 3, "");
    let printed = succeeds(&["train", text(&config), "--set", "optim.lr=1e-4", "--dry-run"]);
    for expected in ["lr = 0.0001", "group_size = 4", "16 completions in a step, at most 768 tokens", "no signal"] {
        assert!(printed.contains(expected), "{expected} in {printed}");
    }
    assert!(std::fs::read_dir(folder.path()).unwrap().count() == 1, "nothing is written");
}

#[test]
fn the_reference_of_all_keys_is_what_the_parser_has() {
    let reference = include_str!("../../docs/config.md");
    assert_eq!(succeeds(&["config"]), reference, "write it again: reckon config > docs/config.md");
    let datasets = toml::from_str::<reckon::config::DataConfig>("dataset = '?'").unwrap_err().to_string();
    let names: Vec<&str> = datasets.split('`').skip(3).step_by(2).collect();
    assert!(names.contains(&"parity"), "{datasets}");
    for name in names {
        assert!(reference.contains(&format!("dataset = \"{name}\"")), "{name}");
    }
}

#[test]
fn bad_input_gets_one_line_that_names_it_and_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let config = small_run(folder.path(), 3, "");
    let config = text(&config);
    let bad_row = folder.path().join("rows.jsonl");
    std::fs::write(&bad_row, "{\"answer\": \"1\", \"completion\": \"1\"}\n{\"answer\": 1,}\n").unwrap();
    for (arguments, expected) in [
        (vec!["train", config, "--set", "optim.lrr=1"], "did you mean \"lr\""),
        (vec!["train", config, "--set", "rollout.group_size=1"], "no group has a signal"),
        (vec!["train", config, "--set", "rollout.prompts_per_step=0"], "gives no update"),
        (
            vec!["train", config, "--set", "rollout.max_new_tokens=511"],
            "prompts of data source \"countdown-0\" are longer than 1 tokens",
        ),
        (vec!["train", config, "--set", "compute.device=gpu"], "did you mean \"cpu\""),
        (vec!["train", config, "--set", "behaviours=[\"aha-r2\"]"], "did you mean \"aha-r1\""),
        (vec!["train", config, "--set", "rollout.shorter_until=[[2, 64]]"], "a limit is from 1 to max_new_tokens = 48"),
        (vec!["eval", config, "--set", "eval.problems=0"], "there is nothing to evaluate: eval.problems"),
        (vec!["sample"], "no prompt"),
        (vec!["verify", "score", "--kind", "countdwon", text(&bad_row)], "did you mean \"countdown\""),
        (vec!["train", config, "--dry-run", "--set", "rubric.verifiers.0.max_deph=3"], "did you mean \"max_depth\"?"),
        (
            vec!["verify", "score", "--kind", "exact", "--set", "ignorecase=true", text(&bad_row)],
            "unknown key \"ignorecase\" in --set ignorecase=true: did you mean \"ignore_case\"?",
        ),
        (vec!["verify", "score", "--kind", "exact", text(&bad_row)], "rows.jsonl, line 2"),
    ] {
        assert_complains(&arguments, expected);
    }
}

#[test]
fn a_path_that_is_not_what_is_asked_for_is_named_with_the_way_out_and_nothing_there_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let config = small_run(folder.path(), 3, "");
    let config = text(&config);
    let (plain, file) = (folder.path().join("plain"), folder.path().join("plain/note.txt"));
    std::fs::create_dir(&plain).unwrap();
    std::fs::write(&file, "mine").unwrap();
    let below = file.join("run");
    let (rows, none) =
        (format!("data={{dataset='file', path='{}'}}", plain.display()), "data={dataset='file', path='x'}");
    for (arguments, expected) in [
        (vec!["train", "nowhere.toml"], "there is no config nowhere.toml: check the path"),
        (vec!["train", text(&plain)], "plain is a folder: name a config in it"),
        (vec!["train", config, "--out", text(&below)], "name one that can be written by --out"),
        (vec!["train", config, "--set", &rows], "plain: it is a folder: name the files in it"),
        (vec!["train", config, "--set", none], "cannot read x: there is no such file: check the path"),
        (vec!["train", config, "--set", "model.path=nowhere"], "nowhere"),
        (vec!["train", "--resume", "nowhere"], "there is no run in \"nowhere\""),
        (vec!["train", "--resume", text(&plain)], "there is no run in"),
        (vec!["experiment", "nowhere.toml"], "there is no config nowhere.toml"),
        (vec!["pipeline", "nowhere.toml", "--out", "x"], "there is no config nowhere.toml"),
        (vec!["traces", "nowhere.toml", "--out", "x"], "there is no config nowhere.toml"),
        (vec!["sft", "nowhere.toml", "--out", "x"], "there is no config nowhere.toml"),
        (vec!["analyze", "nowhere"], "there is no run in nowhere: name a folder with a config.toml"),
        (vec!["verify", "replay", text(&plain)], "name a folder with a config.toml"),
        (
            vec!["export", "builtin:countdown", "--out", text(&plain)],
            "plain holds something else than a model, which would be lost",
        ),
        (
            vec!["plan", config, "--memory", "64GiB", "--ranks", "2", "--measured", "nowhere"],
            "--measured nowhere: there is no run with a metrics.jsonl",
        ),
    ] {
        assert_complains(&arguments, expected);
    }
    assert!(file.exists() && std::fs::read_dir(&plain).unwrap().count() == 1, "what is the user's is left alone");
}

/// Asserts that a command fails with one line that has `expected` in it.
fn assert_complains(arguments: &[&str], expected: &str) {
    let complaint = fails(arguments);
    assert!(complaint.contains(expected), "{arguments:?}: {complaint}");
    assert_eq!(complaint.trim().lines().count(), 1, "{complaint}");
}

#[test]
fn a_value_of_an_option_that_makes_no_sense_is_wrong_usage_and_told_with_what_is_wanted() {
    for (arguments, expected) in [
        (&["trian"][..], "train"),
        (&["bench", "--prompts", "-1"], "'-1' for '--prompts <PROMPTS>': it must be a whole number of at least 1"),
        (&["bench", "--steps", "0"], "'0' for '--steps <STEPS>': it must be a whole number of at least 1"),
        (&["bench", "--heads", "many"], "'many' for '--heads <HEADS>': it must be a whole number of at least 1"),
        (&["bench", "--threads", "-2"], "it must be a whole number of at least 0"),
        (
            &["sample", "a", "--temperature", "-0.5"],
            "'-0.5' for '--temperature <TEMPERATURE>': it must be a number at least 0",
        ),
        (&["sample", "a", "--top-p", "7"], "it must be a number in (0, 1]"),
        (&["sample", "a", "--samples", "0"], "at least 1"),
        (&["plan", "--ranks", "1,0", "--measured", "x"], "'0' for '--ranks <RANKS>'"),
        (&["plan", "--link-gbit", "0", "--ranks", "1", "--measured", "x"], "it must be a number above 0"),
        (&["verify", "bench", "--batch", "0"], "at least 1"),
        (&["launch", "--slurm", "--nodes", "0"], "at least 1"),
        (&["data", "measure", "--out", "x", "--samples", "0"], "at least 1"),
    ] {
        assert_wrong_usage(arguments, expected);
    }
}

#[test]
#[cfg(feature = "serve")]
fn an_address_that_is_none_is_wrong_usage_and_told_with_what_is_one() {
    let expected = "it must be an address of numbers and a port, such as 127.0.0.1:8000";
    for arguments in [["serve", "--address=localhost:80"], ["train", "--serve=127.0.0.1"]] {
        assert_wrong_usage(&arguments, expected);
    }
}

fn assert_wrong_usage(arguments: &[&str], expected: &str) {
    let output = reckon(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", errors(&output));
    assert!(errors(&output).contains(expected), "{arguments:?}: {}", errors(&output));
}

#[test]
#[cfg(not(feature = "cuda"))]
fn a_card_is_asked_of_the_binary_that_computes_on_one() {
    let folder = tempfile::tempdir().unwrap();
    let config = small_run(folder.path(), 3, "");
    let (config, base, out) = (text(&config), base_config(folder.path()), folder.path().join("out"));
    let set = ["--set", "compute.device=cuda"];
    for arguments in [
        vec!["train", set[0], set[1], "--out", text(&out)],
        vec!["train", config, set[0], set[1], "--out", text(&out)],
        vec!["eval", config, set[0], set[1]],
        vec!["sft", text(&base), set[0], set[1], "--out", text(&out)],
        vec!["sample", "1,2:3 ", "--device", "cuda"],
    ] {
        let complaint = fails(&arguments);
        assert!(complaint.contains("cargo build --release --features cuda"), "{arguments:?}: {complaint}");
        assert_eq!(complaint.trim().lines().count(), 1, "{complaint}");
    }
    assert!(fails(&["plan", config, "--device", "cuda"]).contains("pass --memory"));
    assert!(!out.exists(), "nothing is written");
}

#[test]
fn a_run_says_first_what_it_computes_on() {
    let folder = tempfile::tempdir().unwrap();
    let config = small_run(folder.path(), 1, "compute = {device = 'cpu', threads = 1}");
    let out = folder.path().join("run");
    let output = reckon(&["train", text(&config), "--out", text(&out)]).output().unwrap();
    assert!(errors(&output).starts_with("cpu      1 threads, "), "{}", errors(&output));
}

#[test]
fn an_update_that_fails_leaves_the_last_checkpoint_to_go_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let config = small_run(folder.path(), 9, "control = 'coin_flip'\noptim = {lr = 1e38, max_skipped = 1}");
    let out = folder.path().join("run");
    let complaint = fails(&["train", text(&config), "--out", text(&out), "--set", "save.every=100"]);
    assert!(complaint.contains("amid an update") && complaint.contains("lower optim.lr"), "{complaint}");
    let (last, _) = reckon::checkpoint::latest(&out.join("checkpoints")).unwrap().unwrap();
    assert_eq!(last, 0, "what was saved before");
}

#[test]
fn a_whole_run_leaves_config_metrics_rollouts_and_checkpoints_and_prints_what_changed() {
    let folder = tempfile::tempdir().unwrap();
    let config = small_run(folder.path(), 4, "");
    let run = folder.path().join("run");
    let printed = succeeds(&["train", text(&config), "--out", text(&run)]);
    assert!(printed.contains("accuracy") && printed.contains("before"), "{printed}");
    let records = records(&run);
    assert_eq!(records.iter().map(|r| r.step).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(records[1..].iter().all(|r| r.get("policy/mismatch_kl") == Some(0.0)));
    assert!(records[2].get("eval/pass@1").is_some() && records[3].get("eval/pass@1").is_none());
    assert!(run.join("rollouts").read_dir().unwrap().count() >= 2);

    // The resolved config is a config: the same run comes of it.
    let again = folder.path().join("again");
    succeeds(&["train", text(&run.join("config.toml")), "--out", text(&again)]);
    assert_eq!(crate::program::records(&again), records);
    // A run that is over has a summary to print again.
    assert!(succeeds(&["train", "--resume", text(&run)]).contains("before"));
    // Its checkpoint is a model.
    let model = run.join("checkpoints/step-000004");
    let found: Value =
        serde_json::from_str(&succeeds(&["eval", text(&config), "--model", text(&model), "--json"])).unwrap();
    assert_eq!(found["pass@1"].as_f64(), records[4].get("eval/pass@1"));
}

#[test]
fn threads_and_capacity_change_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let config = small_run(folder.path(), 3, "");
    let run = |name: &str, capacity: &str, threads: &str| {
        let out = folder.path().join(name);
        let sets = [format!("rollout.capacity={capacity}"), format!("compute.threads={threads}")];
        succeeds(&["train", text(&config), "--out", text(&out), "--set", &sets[0], "--set", &sets[1]]);
        records(&out)
    };
    let expected = run("a", "64", "2");
    assert_eq!(run("b", "7", "2"), expected);
    assert_eq!(run("c", "64", "1"), expected);
}

/// The names in the table of all that a run has written.
fn metrics_of(run: &Path) -> BTreeSet<&'static str> {
    let lines = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Map<_, Value>>(line).unwrap());
    let names = lines.flat_map(|line| line.into_iter().map(|(name, _)| name)).filter(|name| name != "step");
    names.map(|name| Metric::of(&name).unwrap_or_else(|| panic!("{name} is not in the table")).name).collect()
}

#[test]
fn every_preset_leaves_its_traces_and_all_that_is_written_is_in_the_table_of_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let mut written = BTreeSet::new();
    let mut leaves = |config: &Path, metric: &str| {
        let run = folder.path().join(metric.replace('/', "-"));
        succeeds(&["train", text(config), "--out", text(&run)]);
        let values: Vec<f64> = records(&run).iter().filter_map(|record| record.get(metric)).collect();
        assert!(values.iter().any(|&value| value > 0.0), "{metric} is {values:?}");
        written.extend(metrics_of(&run));
    };
    for (grpo, metric) in [
        ("preset = 'dapo', resample_max = 2", "group/resampled"),
        ("preset = 'grpo', kl_coef = 0.05, completions_per_update = 8, ref_refresh_every = 2", "policy/kl_ref"),
        ("preset = 'dr_grpo', truncated = 'mask'", "policy/entropy"),
        (
            "preset = 'kl_cov', completions_per_update = 8, correction = 'truncate_tokens', entropy_coef = 0.01",
            "policy/selected_frac",
        ),
        ("preset = 'remax'", "reward/greedy_mean"),
        ("preset = 'reinforce_plus_plus', kl_estimator = 'k3', kl_coef = 0.1", "penalty/kl_mean"),
    ] {
        let counted = "behaviours = ['countdown-traces', 'aha-r1']";
        leaves(&small_run(folder.path(), 3, &format!("grpo = {{{grpo}}}\n{counted}")), metric);
    }
    leaves(&crate::curriculum::hopeless(folder.path(), 3), "curriculum/seen");
    let eval = "problems = 8\nsamples = 2\n[[eval.sets]]\nname = 'more'\ndata = {dataset = 'countdown'}\nproblems = 8";
    leaves(&crate::evaluating::with_eval(folder.path(), 1, "", eval), "eval/more/pass@2");
    leaves(&crate::tools::thoughtful_run(folder.path(), ""), "tools/calls_mean");
    leaves(&crate::probes::probing_run(folder.path(), 2, "flat"), "group/stopped_frac");
    let apart = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    leaves(&crate::replay::run_of(apart[0].path(), "rollout"), "router/replayed_frac");
    leaves(&crate::auxiliary::run_of(apart[1].path(), ""), "router/aux_loss");
    crate::teaching::runs_of_every_kind(folder.path()).iter().for_each(|run| written.extend(metrics_of(run)));
    let (config, shared) = (small_run(folder.path(), 1, ""), folder.path().join("shared"));
    crate::ranks::succeeds_on(2, &["train", text(&config), "--out", text(&shared)]);
    written.extend(metrics_of(&shared));
    assert_eq!(written, METRICS.iter().map(|metric| metric.name).collect(), "what the table says is written");
    let printed = succeeds(&["metrics", "--markdown"]);
    assert_eq!(printed, format!("{}\n{}", reckon::metrics::table(), reckon::behaviours::table()));
}

#[test]
fn sft_makes_a_model_from_random_weights_that_samples() {
    let folder = tempfile::tempdir().unwrap();
    let config = base_config(folder.path());
    let model = folder.path().join("model");
    let sets = ["--set", "steps=3", "--set", "tokens_per_step=300"];
    succeeds(&[&["sft", text(&config), "--out", text(&model)], &sets[..]].concat());
    let arguments = [
        "sample",
        "18,1,13:31 ",
        "7,7:14 ",
        "--model",
        text(&model),
        "--samples",
        "3",
        "--max-new-tokens",
        "5",
        "--json",
    ];
    let printed = succeeds(&arguments);
    assert_eq!(printed.lines().count(), 6);
    let first: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
    assert!(first["logprob"].as_f64().unwrap() < 0.0);
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(succeeds(&arguments)), sorted(printed), "the same seed gives the same completions");
}

#[test]
fn bench_reports_both_halves_of_a_step() {
    let small = ["--d", "32", "--layers", "1", "--ffn", "48", "--prompts", "2", "--group", "2", "--new", "8"];
    let printed = succeeds(&[&["bench", "--steps", "1", "--json"], &small[..]].concat());
    let report: Value = serde_json::from_str(&printed).unwrap();
    for key in ["sample_tokens_per_s", "update_tokens_per_s", "matmul_best_gflops"] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key} in {printed}");
    }
}

#[test]
fn a_disk_that_fills_up_while_saving_leaves_the_old_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let config = small_run(folder.path(), 2, "");
    let run = folder.path().join("run");
    succeeds(&["train", text(&config), "--out", text(&run), "--set", "save.keep_last=9"]);
    std::fs::remove_dir_all(run.join("checkpoints/step-000002")).unwrap();
    // Files may not grow beyond 64 blocks of half a kilobyte or one kilobyte: a write of weights fails in the middle.
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" train --resume \"$1\"";
    let output = Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_reckon"), text(&run)]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("earlier files are intact"), "{}", errors(&output));
    let left: Vec<_> = run.join("checkpoints").read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.len() == 2 && left.iter().all(|name| name != "step-000002"), "{left:?}");
}
