//! Stages one after the other: what an earlier one made is what a later one begins with, and a kill anywhere loses nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reckon_datasets::Counted;

use crate::killing::{kill, spawn};
use crate::program::{fails, records, succeeds, text};

const FILES: [(&str, &str); 4] = [
    (
        "start.toml",
        "steps = 6\ntokens_per_step = 1000\nmodel = {path = 'builtin:countdown'}\ndata = {dataset = 'countdown'}\n\
         traces = {success_rate = 0.9}\nsave_every = 2\neval = {rows = 8, every = 3}\noptim = {lr = 5e-4}\n",
    ),
    (
        "rl.toml",
        "steps = 3\nmodel = {path = ''}\ndata = {dataset = 'countdown'}\neval = {problems = 8, every = 2}\n\
         rollout = {prompts_per_step = 4, group_size = 4, max_new_tokens = 48}\nsave = {every = 1}\n\
         rubric = {mode = 'sum', verifiers = [{kind = 'countdown'}, {kind = 'format', weight = 0.2}], \
         schedule = [{verifier = 'format', from_step = 2, ramp_steps = 1}]}\n",
    ),
    (
        "traces.toml",
        "teacher = {path = ''}\ndata = {dataset = 'countdown'}\nproblems = 24\nsamples = 4\n\
         rollout = {max_new_tokens = 80, capacity = 16}\nrubric = {verifiers = [{kind = 'countdown'}]}\n",
    ),
    (
        "again.toml",
        "epochs = 2\nsamples_per_step = 4\nmodel = {path = 'builtin:countdown'}\ndata = {dataset = 'file', path = ''}\n\
         eval = {every = 2}\nsave_every = 2\n",
    ),
];

const STAGES: &str = "
[[stages]]
name = 'start'
kind = 'sft'
config = 'start.toml'
[[stages]]
name = 'rl'
kind = 'train'
config = 'rl.toml'
set = ['model.path={start}']
[[stages]]
name = 'traces'
kind = 'traces'
config = 'traces.toml'
set = ['teacher.path={rl}']
[[stages]]
name = 'again'
kind = 'sft'
config = 'again.toml'
set = ['data.path={traces}', 'data.held_out=0.2']
";

fn workplace() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for (name, keys) in FILES {
        let text =
            format!("{keys}prompt = {{template = '{{question}} '}}\ncompute = {{device = 'cpu', threads = 1}}\n");
        fs::write(folder.path().join(name), text).unwrap();
    }
    let file = folder.path().join("stages.toml");
    fs::write(&file, STAGES).unwrap();
    (folder, file)
}

fn bytes(out: &Path, name: &str) -> Vec<u8> {
    fs::read(out.join(name)).unwrap()
}

#[test]
fn a_pipeline_that_is_killed_anywhere_ends_as_one_that_was_not() {
    let kills: u64 = std::env::var("RECKON_KILLS").map_or(4, |n| n.parse().unwrap());
    let (folder, file) = workplace();
    let (straight, killed) = (folder.path().join("straight"), folder.path().join("killed"));
    let start = Instant::now();
    let printed = succeeds(&["pipeline", text(&file), "--out", text(&straight)]);
    let length = start.elapsed();
    for part in
        ["## start (sft", "## rl (train", "## traces (traces", "## again (sft", "sft/held_out_loss: ", "traces of"]
    {
        assert!(printed.contains(part), "{part} in {printed}");
    }
    assert_eq!(fs::read_to_string(straight.join("report.md")).unwrap().trim(), printed.trim());
    // The second part of the sum came in when it was to.
    let rewards: Vec<f64> = records(&straight.join("2-rl")).iter().filter_map(|r| r.get("reward/mean")).collect();
    assert_eq!(rewards.len(), 3);

    let mut random = Counted::new(&[22]);
    for _ in 0..kills {
        let mut child = spawn(&["pipeline", text(&file), "--out", text(&killed)]);
        kill(&mut child, &killed, length.mul_f64(0.5 * random.unit()) + Duration::from_millis(5), false);
    }
    succeeds(&["pipeline", text(&file), "--out", text(&killed)]);
    for stage in ["1-start", "2-rl", "4-again"] {
        assert_eq!(records(&killed.join(stage)), records(&straight.join(stage)), "{stage}");
    }
    for name in ["1-start/model.safetensors", "3-traces/traces.jsonl", "4-again/model.safetensors"] {
        let (ours, theirs) = (bytes(&killed, name), bytes(&straight, name));
        // A teacher is named by its path, which is of the folder.
        let plain = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).replace("/killed/", "/straight/");
        assert!(plain(ours) == plain(theirs), "{name}");
    }
    // What is over is not run again, and another file is another pipeline.
    let again = Instant::now();
    succeeds(&["pipeline", text(&file), "--out", text(&killed)]);
    assert!(again.elapsed() < length / 2, "{:?} of {length:?}", again.elapsed());
    fs::write(&file, STAGES.replace("0.2", "0.3")).unwrap();
    assert!(
        fails(&["pipeline", text(&file), "--out", text(&killed)]).contains("was changed since its stages were begun")
    );
}

#[test]
fn a_stage_that_fails_is_named_and_its_config_is_checked_as_its_command_does() {
    let (folder, file) = workplace();
    for (from, to, expected) in [
        ("'start.toml'", "'nowhere.toml'", "nowhere.toml"),
        ("'model.path={start}'", "'optim.lrr=1'", "stage \"rl\": unknown key \"optim.lrr\""),
        ("{start}", "{strat}", "asks for {strat}, which is no stage before it"),
        ("kind = 'traces'", "kind = 'trace'", "did you mean \"traces\"?"),
    ] {
        fs::write(&file, STAGES.replace(from, to)).unwrap();
        let out = folder.path().join(format!("out-{}", expected.len()));
        let complaint = fails(&["pipeline", text(&file), "--out", text(&out)]);
        assert!(complaint.contains(expected), "{complaint}");
    }
}
