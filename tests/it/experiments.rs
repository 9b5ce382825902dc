//! Experiments run their arms, go on where they were killed, and say what came of them; saved rollouts are analyzed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::program::{errors, fails, reckon, records, small_run, succeeds, text};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// An experiment of seconds: two arms with a base of their own and one without, by two seeds.
fn small_experiment(folder: &Path, steps: usize) -> PathBuf {
    small_run(folder, steps, "");
    let base = "seed = 1\nsteps = 2\ntokens_per_step = 300\nmodel = {path = 'builtin:countdown'}\n\
        data = {dataset = 'countdown'}\nprompt = {template = '{question} '}\n";
    std::fs::write(folder.join("base.toml"), base).unwrap();
    let experiment = "train = 'config.toml'\nseeds = [1, 2]\nset = ['optim.lr=1e-4']\n\
        [[bases]]\nname = 'primed'\nsft = 'base.toml'\n\
        [[bases]]\nname = 'dots'\nsft = 'base.toml'\nfrom = 'primed'\nset = ['traces.thought=dots']\n\
        [[arms]]\nname = 'primed'\nabout = 'as it is'\nbase = 'primed'\n\
        [[arms]]\nname = 'dots'\nbase = 'dots'\n\
        [[arms]]\nname = 'coin-flip'\nset = ['control=coin_flip']\n\
        [[criteria]]\nsays = 'it is above nothing'\narm = 'primed'\nmeasure = 'length'\nat_least = 1\n\
        [[criteria]]\nsays = 'it is above everything'\narm = 'dots'\nmeasure = 'accuracy'\nat_least = 2\n";
    let file = folder.join("experiment.toml");
    std::fs::write(&file, experiment).unwrap();
    file
}

#[test]
fn an_experiment_runs_every_arm_with_every_seed_and_reports_what_is_met_and_missed() {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (small_experiment(folder.path(), 2), folder.path().join("out"));
    let planned = succeeds(&["experiment", text(&file), "--out", text(&out), "--dry-run"]);
    assert_eq!(planned.lines().next(), Some("base primed (2 steps)"));
    assert!(planned.contains("coin-flip 2 (2 steps)") && !out.exists(), "{planned}");

    let printed = succeeds(&["experiment", text(&file), "--out", text(&out)]);
    assert_eq!(std::fs::read_to_string(out.join("report.txt")).unwrap(), printed);
    for expected in [
        "primed: as it is (2 of 2 seeds)",
        "accuracy",
        "backtracks",
        "met           it is above nothing: ",
        "primed: seeds 1, 2, 2 steps",
        "(McNemar exact, ",
        "dots less primed",
    ] {
        assert!(printed.contains(expected), "{expected} in {printed}");
    }
    assert!(printed.contains("MISSED        it is above everything: "), "{printed}");
    // An arm is the run that the train command makes of the same config.
    let arm = out.join("arms/primed/seed-2");
    let alone = folder.path().join("alone");
    succeeds(&["train", text(&arm.join("config.toml")), "--out", text(&alone)]);
    assert_eq!(records(&arm), records(&alone));
    assert_ne!(records(&arm), records(&out.join("arms/primed/seed-1")), "seeds differ");

    // What is finished is not run again, and the report is the same.
    let checkpoint = out.join("arms/dots/seed-1/checkpoints/step-000002/trainer.json");
    let when = |path: &Path| path.metadata().unwrap().modified().unwrap();
    let before = when(&checkpoint);
    assert_eq!(succeeds(&["experiment", text(&file), "--out", text(&out)]), printed);
    assert_eq!(when(&checkpoint), before);

    // What another config made is no arm of this experiment.
    let changed = fails(&["experiment", text(&file), "--out", text(&out), "--set", "set=[\"optim.lr=1e-3\"]"]);
    assert!(changed.contains("was made with optim.lr = 0.0001 and this experiment has 0.001"), "{changed}");
}

#[test]
fn an_experiment_killed_on_its_way_goes_on_to_the_same_records() {
    let folder = tempfile::tempdir().unwrap();
    let file = small_experiment(folder.path(), 6);
    let (straight, killed) = (folder.path().join("straight"), folder.path().join("killed"));
    succeeds(&["experiment", text(&file), "--out", text(&straight)]);
    let arguments = ["experiment", text(&file), "--out", text(&killed)];
    for (arm, step) in [("primed/seed-1", 2), ("coin-flip/seed-2", 3)] {
        let mut child = reckon(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let reached = killed.join(format!("arms/{arm}/checkpoints/step-{step:06}"));
        while !reached.exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    succeeds(&arguments);
    for arm in ["primed/seed-1", "dots/seed-2", "coin-flip/seed-2"] {
        let path = |out: &Path| out.join("arms").join(arm);
        assert_eq!(records(&path(&killed)), records(&path(&straight)), "{arm}");
    }
}

#[test]
fn an_arm_that_fails_leaves_the_others_to_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (small_experiment(folder.path(), 2), folder.path().join("out"));
    let broken = std::fs::read_to_string(&file).unwrap().replace("control=coin_flip", "model.path=nowhere");
    std::fs::write(&file, broken).unwrap();
    let output = reckon(&["experiment", text(&file), "--out", text(&out)]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let complaint = errors(&output);
    assert!(complaint.contains("error: coin-flip 1") && complaint.contains("nowhere"), "{complaint}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("dots (2 of 2 seeds)"));
}

#[test]
fn bad_experiments_get_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = small_experiment(folder.path(), 2);
    let out = folder.path().join("out");
    for (set, expected) in [
        ("seeds=[]", "seeds = []"),
        ("arms.0.base=prime", "did you mean \"primed\"?"),
        ("arms.0.set=[\"optim.lrr=1\"]", "did you mean \"lr\""),
        ("arms.0.set=[\"eval.problems=3\"]", "eval is the same for all arms"),
        ("set=[\"eval.problems=0\"]", "there have to be some"),
        ("train=nowhere.toml", "nowhere.toml"),
        ("bases.0.set=[\"traces.longest=x\"]", "traces.longest"),
        ("seed=[1]", "did you mean \"seeds\""),
    ] {
        let complaint = fails(&["experiment", text(&file), "--out", text(&out), "--set", set]);
        assert!(complaint.contains(expected), "{set}: {complaint}");
        assert_eq!(complaint.trim().lines().count(), 1, "{complaint}");
    }
    assert!(!out.exists(), "nothing is written");
}

#[test]
fn shipped_experiments_can_be_read() {
    for name in [
        "aha-countdown",
        "aha-three-sum",
        "aha-parity",
        "length-bias",
        "longer-budget",
        "aha-smollm2",
        "aha-llama-3b-primed",
        "moe-countdown",
    ] {
        let file = format!("{ROOT}/examples/{name}/experiment.toml");
        let command = reckon(&["experiment", &file, "--dry-run"]).current_dir(ROOT).output().unwrap();
        assert!(command.status.success(), "{name}: {}", errors(&command));
    }
}

#[test]
fn a_run_is_analyzed_by_its_rollouts_and_by_sampling_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (config, run) = (small_run(folder.path(), 4, ""), folder.path().join("run"));
    succeeds(&["train", text(&config), "--out", text(&run)]);
    let printed = succeeds(&["analyze", text(&run)]);
    for expected in ["with a reflection", "repeated 4-grams", "mixed languages", "verified attempts", "gave up"] {
        assert!(printed.contains(expected), "{expected} in {printed}");
    }
    let words = succeeds(&["analyze", text(&run), "--behaviours", "aha-r1,wait"]);
    assert!(words.contains("aha-r1 per 1k") && words.contains("wait any"), "{words}");

    let arguments = ["analyze", text(&run), "--pass-at", "8", "--problems", "6", "--json"];
    let found: Value = serde_json::from_str(&succeeds(&arguments)).unwrap();
    let steps = found["steps"].as_array().unwrap();
    assert_eq!(steps.iter().map(|step| step["step"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(steps[0]["completions"], 16);
    let split = |name: &str| steps[0][name]["all"].as_u64().unwrap();
    assert_eq!(split("reflecting") + split("direct"), split("all"));
    let at = found["pass_at"].as_array().unwrap();
    assert_eq!(at.iter().map(|at| at["k"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 4, 8]);
    for model in ["base", "trained"] {
        assert!(at.windows(2).all(|two| two[0][model].as_f64() <= two[1][model].as_f64()), "{model}: {at:?}");
    }
}
