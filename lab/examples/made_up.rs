//! Writes an experiment that nobody ran: folders of runs as `reckon train` leaves them, with made-up numbers and texts, to
//! try and to measure what is done with such folders.
//!
//! `cargo run --release -p reckon-lab --example made_up -- FOLDER [STEPS]`, which also writes `FOLDER/report.html`.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use reckon_lab::arms::Study;
use reckon_lab::report::{Options, Report};
use reckon_lab::stats::Draws;
use serde_json::{Map, Value, json};

/// How much of everything there is.
#[derive(Clone, Copy)]
pub struct Size {
    pub seeds: u64,
    pub steps: u64,
    pub groups: usize,
    pub group_size: usize,
    pub problems: usize,
}

/// Arms with what becomes of them: accuracy at the end, tokens at the end.
pub const ARMS: [(&str, f64, f64); 5] = [
    ("primed", 0.8, 80.0),
    ("direct", 0.42, 14.0),
    ("wrong-only", 0.74, 76.0),
    ("dots", 0.4, 41.0),
    ("coin-flip", 0.03, 35.0),
];

#[allow(dead_code)]
fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let (folder, steps) = (Path::new(&arguments[1]), arguments.get(2).map_or(500, |steps| steps.parse().unwrap()));
    experiment(folder, Size { seeds: 3, steps, groups: 16, group_size: 16, problems: 300 });
    let mut study = Study::read(&[arguments[1].clone()]).unwrap();
    let report = Report::of(&mut study, &Options { meaning: &|_| None, live: false }).unwrap();
    fs::write(folder.join("report.html"), report.page()).unwrap();
}

/// All arms and seeds, as `ROOT/ARM/seed-1`.
pub fn experiment(root: &Path, size: Size) {
    for (arm, accuracy, tokens) in ARMS {
        for seed in 1..=size.seeds {
            run(&root.join(arm).join(format!("seed-{seed}")), (arm, accuracy, tokens), seed, size);
        }
    }
}

/// One run.
pub fn run(folder: &Path, (arm, accuracy, tokens): (&str, f64, f64), seed: u64, size: Size) {
    for below in ["rollouts", "evals"] {
        fs::create_dir_all(folder.join(below)).unwrap();
    }
    let control = if arm == "coin-flip" { "control = \"coin_flip\"\n" } else { "" };
    let config = format!(
        "seed = {seed}\nsteps = {}\n{control}\n[model]\npath = \"bases/{arm}\"\n\n[optim]\nlr = 0.0003\n",
        size.steps
    );
    fs::write(folder.join("config.toml"), config).unwrap();
    fs::write(folder.join("machine.json"), r#"{"reckon":"0.1.0","processor":"made up","cores":"2"}"#).unwrap();
    let mut draws = Draws::new(seed * 1000 + arm.len() as u64);
    let every = (size.steps / 10).max(1);
    let mut metrics = String::new();
    for step in 0..=size.steps {
        let share = 1.0 - (-6.0 * step as f64 / size.steps as f64).exp();
        let (p, length) = (0.23 + (accuracy - 0.23) * share, 30.0 + (tokens - 30.0) * share);
        let mut record = if step == 0 { Map::new() } else { numbers(&mut draws, p, length) };
        if step % every == 0 {
            let eval = evaluation(&mut draws, p, length, size.problems);
            let right = eval["judged"].as_array().unwrap().iter().filter(|judged| judged["passed"] == true).count();
            record.insert("eval/pass@1".into(), json!(right as f64 / size.problems as f64));
            record.insert("eval/len_mean".into(), json!(length));
            let place = if step == 0 { "before.json".to_owned() } else { format!("evals/step-{step:06}.json") };
            fs::write(folder.join(place), eval.to_string()).unwrap();
        }
        let mut line = Map::from_iter([("step".to_owned(), json!(step))]);
        line.append(&mut record);
        writeln!(metrics, "{}", Value::Object(line)).unwrap();
        if step % 10 == 1 {
            fs::write(
                folder.join(format!("rollouts/step-{step:06}.jsonl")),
                rollouts(&mut draws, p, length, step, size),
            )
            .unwrap();
        }
    }
    fs::write(folder.join("metrics.jsonl"), metrics).unwrap();
    fs::write(
        folder.join("live.jsonl"),
        rollouts(&mut draws, accuracy, tokens, size.steps, Size { groups: 1, ..size }),
    )
    .unwrap();
}

fn share(draws: &mut Draws) -> f64 {
    draws.below(1 << 20) as f64 / f64::from(1 << 20)
}

/// The names of a real record.
const NAMES: [&str; 32] = [
    "reward/std",
    "reward/not_judged_frac",
    "reward/countdown",
    "verdict/countdown/pass",
    "verdict/countdown/fail",
    "verdict/countdown/unparsed",
    "verdict/countdown/truncated",
    "verdict/countdown/timeout",
    "verdict/countdown/crash",
    "completion/len_max",
    "completion/truncated_frac",
    "completion/waits_mean",
    "completion/attempts_mean",
    "group/zero_signal_frac",
    "group/resampled",
    "group/kept",
    "loss/total",
    "policy/entropy",
    "policy/clip_frac",
    "policy/clip_low_frac",
    "policy/clip_high_frac",
    "optim/grad_norm",
    "time/sample_s",
    "time/verify_s",
    "time/forward_backward_s",
    "time/update_s",
    "time/step_s",
    "speed/sample_tokens_per_s",
    "speed/update_tokens_per_s",
    "behaviour/attempts",
    "behaviour/backtracks",
    "behaviour/repeats",
];

fn numbers(draws: &mut Draws, p: f64, length: f64) -> Map<String, Value> {
    let mut record = Map::new();
    for name in NAMES {
        record.insert(name.into(), json!(p * share(draws) + 0.01));
    }
    record.insert("completion/len_mean".into(), json!(length + 3.0 * share(draws)));
    record.insert("reward/mean".into(), json!(p + 0.05 * share(draws)));
    record.insert("policy/mismatch_kl".into(), json!(0.0));
    record.insert("optim/lr".into(), json!(3e-4));
    record
}

fn evaluation(draws: &mut Draws, p: f64, length: f64, problems: usize) -> Value {
    let judged = (0..problems).map(|problem| {
        let passed = share(draws) < p;
        json!({"question": question(problem), "completion": completion(draws, length, passed).0, "passed": passed})
    });
    json!({"judged": judged.collect::<Vec<_>>()})
}

fn question(problem: usize) -> String {
    format!("{},{},{}:{}", problem % 20 + 1, problem / 20 + 1, problem % 7 + 1, problem % 99 + 1)
}

/// A text of about so many tokens, and the bytes of each.
fn completion(draws: &mut Draws, length: f64, passed: bool) -> (String, Vec<usize>) {
    let (mut text, mut pieces) = (String::new(), Vec::new());
    let mut push = |token: &str| {
        text.push_str(token);
        pieces.push(token.len());
    };
    push("<think>");
    for index in 0..(length * (0.6 + 0.8 * share(draws))) as usize {
        let number = draws.below(99).to_string();
        push(if index % 8 == 7 { "wait" } else { [number.as_str(), "+", "-", "*", "=", ","][draws.below(6)] });
    }
    push(if passed { "ok" } else { "" });
    push("</think>");
    push("<answer>(1+2)*3</answer>");
    (text, pieces)
}

fn rollouts(draws: &mut Draws, p: f64, length: f64, step: u64, size: Size) -> String {
    let mut lines = String::new();
    for group in 0..size.groups {
        let rollouts: Vec<Value> = (0..size.group_size).map(|_| rollout(draws, p, length, group < 4)).collect();
        let problem = step as usize * 16 + group;
        let example = json!({"id": format!("countdown-{problem}"), "question": question(problem), "answer": "(1+2)*3", "info": {}});
        writeln!(lines, "{}", json!({"step": step, "source": 0, "example": example, "rollouts": rollouts})).unwrap();
    }
    lines
}

fn rollout(draws: &mut Draws, p: f64, length: f64, by_token: bool) -> Value {
    let (passed, truncated) = (share(draws) < p, share(draws) < 0.02);
    let (text, mut pieces) = completion(draws, length, passed);
    pieces.push(8);
    let reward = f64::from(passed && !truncated);
    let outcome = if truncated {
        "truncated"
    } else if passed {
        "pass"
    } else {
        "fail"
    };
    let mut rollout = json!({
        "completion": text, "tokens": pieces, "truncated": truncated, "reward": reward, "passed": passed && !truncated,
        "score": {"total": reward, "parts": [{"reward": reward, "outcome": outcome, "reason": "as it was made up"}]},
        "advantage": reward - p,
    });
    if by_token {
        let mut each = |most: f64| {
            pieces.iter().map(|_| json!((most * share(draws) * 1000.0).round() / 1000.0)).collect::<Vec<_>>()
        };
        rollout["by_token"] = json!({"start": 0, "pieces": pieces, "logprobs": each(-2.0), "entropies": each(1.5)});
    }
    rollout
}
