//! What `reckon plan` counts is what is held, and what does not fit is refused before it begins.

use std::sync::Mutex;

use reckon::batch::PromptLayout;
use reckon::config::{Target, TrainConfig};
use reckon::grpo::{LossNorm, TrainSample, micro_batches};
use reckon::model::DeviceModel;
use reckon::ops::device::Class;
use reckon::ops::linear::Precision;
use reckon::optim::{AdamWConfig, DeviceAdamW, MomentKind};
use reckon::plan::{Job, Lora, Plan, Sizes};
use reckon::policy::Model;
use reckon::policy::Policy;
use reckon::ranks::DeviceRanks;
use reckon::rollout::{Engine, PromptTokens, Request, SampleKey, Sampling};
use reckon::strict;

use crate::device_lora::adapted;
use crate::host_device::device;
use crate::models::{DELTA, FAMILIES, MIXTURES, VOCAB, cpu, cpu_mut, families, prompt_of, rising, sampling, tiny_with};
use crate::program::{fails, small_run, succeeds, text};

const TOKENS: usize = 96;

/// A sample that is all completion.
fn sample() -> TrainSample {
    TrainSample {
        tokens: (0..=TOKENS).map(|i| (i % VOCAB) as u32).collect(),
        prompt_len: 1,
        rollout_logprobs: vec![-1.0; TOKENS],
        advantages: vec![1.0; TOKENS],
        ..TrainSample::default()
    }
}

pub(super) fn job(recompute: bool, lora: Option<Lora>, moments: MomentKind) -> Job {
    Job {
        device: Target::Cuda,
        ranks: 1,
        threads: 1,
        precision: Precision::Fp32,
        micro_batch_tokens: TOKENS,
        recompute,
        rows: 3,
        prompt: 20,
        sequence: TOKENS,
        update_tokens: TOKENS,
        reference: false,
        lora,
        moments,
        teacher: None,
        routed: 0,
        ahead: false,
    }
}

/// Compares what an update of `policy` holds of each class, and then its sampling, with what the plan says; the job of
/// the plan is `job`.
pub(super) fn check_held(what: &str, device: &reckon::ops::device::Device, policy: &Policy, job: &Job) {
    let config = AdamWConfig { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, max_grad_norm: 0.5 };
    let micro = micro_batches(&[sample()], LossNorm::Token, TOKENS, PromptLayout::Repeated).remove(0);
    let model = DeviceModel::new(device.clone(), &cpu(policy).decoder, cpu(policy).parameters()).unwrap();
    let _optimizer = DeviceAdamW::new(config, job.moments, &model, DeviceRanks::default()).unwrap();
    model.gradient(&micro, 1.0, &rising).unwrap();
    let plan = Plan::new(&Sizes::of(&policy.config).unwrap(), job);
    for (class, planned) in [
        (Class::Weights, plan.weights + plan.copy),
        (Class::Optimizer, plan.optimizer),
        (Class::Gradients, plan.gradients),
        (Class::Activations, plan.activations + plan.logits),
    ] {
        check_near(&format!("{what}: {class:?}"), device.held(class), planned);
    }
    // Every token ends a completion: memory is taken for all that there could be.
    let sampling = Sampling { stop_tokens: (0..VOCAB as u32).collect(), ..sampling(job.sequence - job.prompt) };
    let engine = Engine { model: Model::Device(&model), ..Engine::of(policy, job.rows) };
    let held = Mutex::new(0);
    let (prompt, key) = (prompt_of(&vec![1; job.prompt], 0), SampleKey { seed: 1, step: 2 });
    let request = Request {
        prompts: &[PromptTokens::from(&prompt)],
        group_size: job.rows,
        sampling: &sampling,
        key,
        calling: None,
        order: None,
        routed: false,
    };
    engine
        .generate(&request, &|_, _, _| {
            assert_eq!(device.held(Class::Activations), 0, "{what}: the update's memory is given back");
            *held.lock().unwrap() = device.held(Class::Cache);
        })
        .unwrap();
    check_near(&format!("{what}: sampling"), held.into_inner().unwrap(), plan.cache + plan.prefill);
    assert_eq!(device.held(Class::Cache), 0, "{what}: the cache is given back");
}

fn check_near(what: &str, held: usize, planned: usize) {
    let error = (planned as f64 / held as f64 - 1.0).abs();
    assert!(error < 0.05, "{what} holds {held}, planned {planned}");
}

#[test]
fn the_plan_for_a_card_is_what_a_device_holds_within_a_twentieth() {
    for (architecture, recompute) in
        FAMILIES.iter().chain(&MIXTURES[..3]).chain(&[DELTA]).flat_map(|family| [(family, false), (family, true)])
    {
        let Some(device) = device(0) else { return };
        let mut policy = tiny_with(architecture, true, 32);
        cpu_mut(&mut policy).decoder.recompute = recompute;
        let moments = if recompute { MomentKind::EightBit } else { MomentKind::Full };
        let what = format!("{architecture}, recompute {recompute}, {moments:?}");
        check_held(&what, &device, &policy, &job(recompute, None, moments));
    }
}

#[test]
fn the_plan_for_a_cpu_has_the_rows_that_a_small_model_samples_at_a_time() {
    let text = "steps = 1\nmodel = {path = 'tiny'}\ndata = {dataset = 'countdown'}
        rollout = {prompts_per_step = 100000, capacity = 1000000, max_new_tokens = 50}
        rubric = {verifiers = [{kind = 'countdown'}]}\ncompute = {device = 'cpu', threads = 2}";
    let config: TrainConfig = strict::load(text, "the test's config", &[]).unwrap();
    for architecture in families() {
        let policy = tiny_with(architecture, true, 32);
        let job = Job::of(&config, &policy.config, 0, 20).unwrap();
        assert_eq!(job.rows, cpu(&policy).rows(2, 70), "{architecture}");
    }
}

#[test]
fn the_plan_for_an_adapter_on_a_card_is_what_a_device_holds_within_a_twentieth() {
    for (architecture, rank, targets) in
        [(FAMILIES[0], 4, "*_proj"), (FAMILIES[1], 9, "*_proj"), (FAMILIES[2], 16, "down_proj"), (DELTA, 4, "*_proj")]
    {
        let Some(device) = device(0) else { return };
        let policy = adapted(architecture, rank, &[targets]);
        let lora = Lora::of(&cpu(&policy).parameters().adapter().unwrap().layout, 0);
        let what = format!("{architecture}, rank {rank} of {targets}");
        check_held(&what, &device, &policy, &job(false, Some(lora), MomentKind::Full));
    }
}

#[test]
fn a_plan_names_every_class_and_picks_what_the_config_leaves_open() {
    let folder = tempfile::tempdir().unwrap();
    let config = small_run(folder.path(), 1, "compute = {device = 'cpu', threads = 2}");
    let printed = succeeds(&["plan", text(&config), "--memory", "1GiB"]);
    for expected in ["optimizer", "activations if recomputed", "cache", "recompute = false", "capacity = 16"] {
        assert!(printed.contains(expected), "{expected} in {printed}");
    }
    let crowd = ["plan", text(&config), "--set", "rollout.prompts_per_step=64", "--memory"];
    // 94 MB with activations kept, 77 with activations computed again; 64 rows, which stay near, have 25 MB of that.
    for (memory, recompute, all_rows) in [("100MB", false, true), ("85MB", true, true), ("70MB", true, false)] {
        let printed = succeeds(&[&crowd[..], &[memory]].concat());
        assert!(printed.contains(&format!("recompute = {recompute}")), "{memory}: {printed}");
        assert_eq!(printed.contains("capacity = 64"), all_rows, "{memory}: {printed}");
    }
    let kept = succeeds(&["plan", text(&config), "--memory", "64MiB", "--set", "rollout.capacity=3"]);
    assert!(kept.contains("capacity = 3"), "{kept}");
    let card = succeeds(&["plan", text(&config), "--device", "cuda", "--memory", "1GiB"]);
    assert!(card.contains("micro_batch_tokens = 1024"), "16 sequences of about 63 tokens: {card}");
    let optimizer = |printed: &str| printed.lines().find(|line| line.starts_with("optimizer")).unwrap().to_owned();
    let adapter = ["plan", text(&config), "--device", "cuda", "--memory", "1GiB", "--set", "lora.rank=2"];
    assert_ne!(optimizer(&succeeds(&adapter)), optimizer(&card), "moments of the adapter alone");
}

#[test]
fn what_does_not_fit_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let config = small_run(folder.path(), 1, "");
    let config = text(&config);
    let large = ["--set", "compute.micro_batch_tokens=400000000"];
    for (arguments, expected) in [
        (vec!["plan", config, "--memory", "9MB"], "does not fit into 0.008 GiB"),
        (vec!["plan", config, "--memory", "9"], "write a unit"),
        (vec!["plan", config, "--prompt-tokens", "500"], "more than the model's context of 512"),
        ([&["train", config][..], &large].concat(), "the run needs"),
    ] {
        let complaint = fails(&arguments);
        assert!(complaint.contains(expected), "{arguments:?}: {complaint}");
        assert_eq!(complaint.trim().lines().count(), 1, "{complaint}");
    }
}

#[test]
fn what_several_ranks_take_is_told_from_the_times_of_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let config = small_run(folder.path(), 3, "compute = {device = 'cpu'}");
    let run = folder.path().join("run");
    succeeds(&["train", text(&config), "--out", text(&run)]);
    let asked = ["plan", text(&config), "--memory", "1GiB", "--measured", text(&run), "--ranks"];
    let table = |more: &[&str]| -> Vec<Vec<f64>> {
        let printed = succeeds(&[&asked[..], more].concat());
        let rows = printed.lines().skip_while(|line| !line.starts_with(" ranks")).skip(1);
        let number = |word: &str| word.trim_end_matches('x').parse().ok();
        rows.map(|row| row.split_whitespace().filter_map(number).collect()).collect()
    };
    let rows = table(&["1,2,64"]);
    // Ranks, memory, sampling, passes, update, sending, serial, step, speed.
    assert!(rows.len() == 3 && rows.iter().all(|row| row.len() == 9), "{rows:?}");
    assert_eq!((rows[0][0], rows[0][5], rows[0][8]), (1.0, 0.0, 1.0), "a process alone is what was measured");
    assert!(rows[2][2] < rows[1][2] && rows[1][2] < rows[0][2], "sampling is shared: {rows:?}");
    assert!(rows[2][1] <= rows[0][1], "with fewer rows to sample: {rows:?}");
    assert!(rows[2][4] <= rows[1][4] && rows[1][4] <= rows[0][4], "updates are shared: {rows:?}");
    assert!(rows.iter().all(|row| row[6] == rows[0][6]), "what is not shared stays: {rows:?}");
    let slow = table(&["2", "--link-gbit", "0.001"]);
    assert!(slow[0][5] > 10.0 * rows[1][5] && slow[0][8] < 1.0, "a slow link eats the gain: {slow:?}");
    let short = folder.path().join("short");
    succeeds(&["train", text(&config), "--out", text(&short), "--set", "steps=1"]);
    let complaint = fails(&["plan", text(&config), "--memory", "1GiB", "--measured", text(&short), "--ranks", "2"]);
    assert!(complaint.contains("no steps after its first"), "{complaint}");
}
