//! Training with the model on a device, its kernels run on this machine's processor.

use std::path::Path;
use std::sync::OnceLock;

use reckon::batch::{LossStats, MicroBatch, Teaching, TokenLosses, TokenStats};
use reckon::checkpoint::{RunFolder, state};
use reckon::config::{GrpoConfig, OptimConfig, SftConfig, TrainConfig};
use reckon::grpo::{LossConfig, token_losses};
use reckon::judge::Judge;
use reckon::metrics::Record;
use reckon::model::ModelFolder;
use reckon::ops::attention::Segment;
use reckon::ops::device::{Class, Device};
use reckon::ops::linear_logprob::distill::Divergence;
use reckon::optim::{MomentKind, Update};
use reckon::policy::{Policy, Training, Who};
use reckon::ranks::tcp::ring_of_threads;
use reckon::ranks::{DeviceRanks, Ranks};
use reckon::sft::{SftSample, SftTrainer};
use reckon::strict;
use reckon::train::Trainer;
use reckon::train::teacher::Teacher;
use reckon_rewards::Rubric;

use super::device_experts::mixture;
use super::device_lora::adapted;
use super::device_model::{distance, loss, rounded};
use super::host_device::{device, device_of, devices_of_ranks};
use super::models::{DELTA, FAMILIES, MIXTURES, VOCAB, cpu, cpu_learner, micros, on_device, samples};

/// The same model on a device.
fn moved(policy: Policy, device: Device) -> Policy {
    let weights = cpu(&policy).parameters().clone();
    let Policy { config, tokenizer, companions, .. } = policy;
    Policy::on_device(ModelFolder { config, tokenizer, companions, weights }, false, 1, device).unwrap()
}

fn values(policy: &Policy) -> Vec<f32> {
    on_device(policy).trainable.download().unwrap()
}

/// A file of questions of two tokens.
fn questions() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = format!("{}/questions-{}.jsonl", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        let rows = ('g'..='x').map(|c| format!("{{\"question\": \"a{c}\", \"answer\": \"d\"}}\n"));
        std::fs::write(&path, rows.collect::<String>()).unwrap();
        path
    })
}

/// A run of a moment, with rewards by the toss of a coin.
fn config(more: &[&str]) -> TrainConfig {
    let text = "steps = 9\nmodel = {path = 'tiny'}\nprompt = {template = '{question}'}
        data = {dataset = 'file', path = 'PATH', columns = {question = 'question', answer = 'answer'}, held_out = 0.5}
        rollout = {prompts_per_step = 2, group_size = 2, max_new_tokens = 3, stop = ['c']}
        eval = {problems = 0}\nrubric = {verifiers = [{kind = 'exact'}]}\ncontrol = 'coin_flip'
        optim = {lr = 1e-2}\ncompute = {device = 'cuda', micro_batch_tokens = 6}";
    let sets: Vec<String> = more.iter().map(|&set| set.to_owned()).collect();
    strict::load(&text.replace("PATH", questions()), "the test's config", &sets).unwrap()
}

fn trainer(config: TrainConfig, policy: Policy) -> Trainer {
    trainer_among(Ranks::alone(), config, policy)
}

fn trainer_among(ranks: Ranks, config: TrainConfig, policy: Policy) -> Trainer {
    let judge = Judge::new(vec![Rubric::from_config(&config.rubric).unwrap()]).unwrap();
    Trainer::among(ranks, config, policy, judge).unwrap()
}

fn steps(trainer: &mut Trainer, count: usize) -> Vec<Record> {
    (0..count).map(|_| trainer.step().unwrap().record.without_timings()).collect()
}

/// What a run asks for of the routers of a model with experts, over several updates a step.
const EXPERTS: [&str; 3] =
    ["grpo.router_replay=rollout", "optim.router_aux_loss_coef=0.1", "grpo.completions_per_update=2"];

/// The same of a model whose routers have biases, with a reference that follows.
const LATENTS: [&str; 5] = [
    "grpo.router_replay=rollout",
    "optim.balance=0.01",
    "grpo.completions_per_update=2",
    "grpo.kl_coef=0.05",
    "grpo.ref_refresh_every=1",
];

/// Every bit that a run goes on from.
fn bits(trainer: &Trainer) -> Vec<Vec<u8>> {
    let parts = trainer.policy.state();
    let mut bits: Vec<Vec<u8>> = parts.iter().map(|(_, tensor)| tensor.read(0..tensor.count()).unwrap()).collect();
    bits.push(bytemuck::cast_slice(&values(&trainer.policy)).to_vec());
    bits
}

#[test]
fn a_run_on_a_device_that_stops_and_resumes_equals_one_that_did_not_to_the_bit() {
    let full = || rounded(FAMILIES[2], true);
    let adapter = || adapted(FAMILIES[1], 4, &["*_proj"]);
    let experts = || rounded(MIXTURES[1], true);
    let delta = || rounded(DELTA, true);
    type Case<'a> = (&'a str, &'a dyn Fn() -> Policy, &'a [&'a str]);
    let latents = || mixture(MIXTURES[4]);
    let cases: [Case; 7] = [
        ("all weights", &full, &[]),
        ("eight bits", &full, &["optim.moments=eight_bit"]),
        ("a reference", &full, &["grpo.kl_coef=0.05", "grpo.ref_refresh_every=1", "grpo.completions_per_update=2"]),
        ("an adapter with its base as the reference", &adapter, &["grpo.kl_coef=0.05"]),
        ("experts", &experts, &EXPERTS),
        ("latents", &latents, &LATENTS),
        ("delta nets", &delta, &["grpo.completions_per_update=2"]),
    ];
    for (what, policy, sets) in cases {
        let Some(device) = device(0) else { return };
        let start = || trainer(config(sets), moved(policy(), device.clone()));
        let mut straight = start();
        let mut expected = steps(&mut straight, 4);
        assert!(expected.iter().any(|record| record.get("optim/updates") > Some(0.0)), "{what}: nothing is trained");

        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(root.path().join("run")).unwrap();
        let mut first = start();
        steps(&mut first, 2);
        state::save(&first, Some(&folder)).unwrap();
        let mut resumed = start();
        assert!(state::restore(&mut resumed, &folder).unwrap());
        assert_eq!(bits(&resumed), bits(&first), "{what}: what was saved");
        assert_eq!(steps(&mut resumed, 2), expected.split_off(2), "{what}: metrics");
        assert!(bits(&resumed) == bits(&straight), "{what}: weights, moments or reference");
    }
}

/// What is compared of runs on other numbers of ranks.
const METRICS: [&str; 6] =
    ["reward/mean", "completion/len_mean", "optim/grad_norm", "loss/total", "router/load_max", "router/aux_loss"];

/// The metrics of two steps on as many ranks as there are devices, and weights and moments after them, as the first one
/// has them; all have its weights.
fn on_ranks(devices: Vec<Device>, start: impl Fn(Ranks, Device) -> Trainer + Sync) -> (Vec<Record>, Vec<Vec<u8>>) {
    let ranks = ring_of_threads(devices.len()).unwrap();
    let (outcomes, bytes): (Vec<_>, Vec<_>) = std::thread::scope(|scope| {
        let run = |(ranks, device): (Ranks, Device)| {
            let start = &start;
            scope.spawn(move || {
                let mut trainer = start(ranks.clone(), device.clone());
                trainer.rehearse().unwrap();
                let held = device.held(Class::Optimizer);
                let outcome = (steps(&mut trainer, 2), bits(&trainer), values(&trainer.policy));
                ranks.finish(Ok(())).unwrap();
                (outcome, held)
            })
        };
        let threads: Vec<_> = ranks.into_iter().zip(devices).map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).unzip()
    });
    let largest = bytes.iter().max().unwrap();
    assert!(largest * bytes.len() < bytes.iter().sum::<usize>() * 11 / 10, "moments are shared out: {bytes:?}");
    let mut outcomes = outcomes.into_iter();
    let (records, state, first) = outcomes.next().unwrap();
    assert!(outcomes.all(|(others, _, weights)| others.len() == records.len() && weights == first), "weights differ");
    (records, state)
}

#[test]
fn a_run_on_devices_of_several_ranks_is_that_of_one_whether_they_are_joined_or_speak_by_their_hosts() {
    let full = || rounded(FAMILIES[2], true);
    let adapter = || adapted(FAMILIES[1], 4, &["*_proj"]);
    let experts = || rounded(MIXTURES[1], true);
    type Case<'a> = (&'a str, &'a (dyn Fn() -> Policy + Sync), &'a [&'a str], &'a [(usize, bool)]);
    let latents = || mixture(MIXTURES[4]);
    let delta = || rounded(DELTA, true);
    let cases: [Case; 6] = [
        (
            "all weights",
            &full,
            &["grpo.kl_coef=0.05", "grpo.completions_per_update=4"],
            &[(2, false), (2, true), (3, true)],
        ),
        ("eight bits", &full, &["optim.moments=eight_bit"], &[(2, true)]),
        ("an adapter", &adapter, &[], &[(2, true)]),
        ("experts", &experts, &EXPERTS, &[(2, true)]),
        ("latents", &latents, &LATENTS, &[(2, false)]),
        ("delta nets", &delta, &[], &[(2, true)]),
    ];
    for (what, policy, sets, ways) in cases {
        let sets = [sets, &["rollout.prompts_per_step=4"]].concat();
        let start = |ranks: Ranks, device: Device| trainer_among(ranks, config(&sets), moved(policy(), device));
        let on = |size: usize, joined: bool| Some(on_ranks(devices_of_ranks(size, joined)?, start));
        let Some(alone) = on(1, false) else { return };
        assert!(alone.0.iter().any(|record| record.get("optim/updates") > Some(0.0)), "{what}: nothing is trained");
        let routers = |record: &Record| record.get("router/aux_loss").is_some();
        assert_eq!(alone.0.iter().any(routers), sets.contains(&EXPERTS[1]), "{what}: what routers chose");
        for &(size, joined) in ways {
            let Some((records, state)) = on(size, joined) else { return };
            let what = format!("{what} on {size} ranks, joined: {joined}");
            for (record, expected) in records.iter().zip(&alone.0) {
                for name in METRICS {
                    let (got, expected) = (record.get(name), expected.get(name));
                    let close = |a: f64, b: f64| (a - b).abs() <= 1e-3 * b.abs().max(1e-3);
                    let alike = match (got, expected) {
                        (Some(got), Some(expected)) => close(got, expected),
                        (None, None) => ["optim", "loss", "router"].iter().any(|part| name.starts_with(part)),
                        _ => false,
                    };
                    assert!(alike, "{what}: {name} {got:?}, {expected:?}");
                }
            }
            let floats = |bytes: &[u8]| bytemuck::cast_slice::<u8, f32>(bytes).to_vec();
            let [got, expected] = [&state, &alone.1].map(|state| floats(state.last().unwrap()));
            assert!(distance(&got, &expected) < 1e-3, "{what}: weights by {}", distance(&got, &expected));
            assert_eq!(state.len(), alone.1.len(), "{what}");
            for (row, expected) in state.iter().zip(&alone.1) {
                assert_eq!(row.len(), expected.len(), "{what}: a row of moments");
            }
        }
    }
}

#[test]
fn ranks_of_which_some_have_no_way_between_cards_are_refused() {
    let (Some(mut devices), Some(other)) = (devices_of_ranks(2, true), device_of(0, usize::MAX)) else { return };
    devices[1] = other;
    let errors: Vec<String> = std::thread::scope(|scope| {
        let join = |(ranks, device): (Ranks, Device)| {
            scope.spawn(move || format!("{:#}", DeviceRanks::join(&ranks, &device).unwrap_err()))
        };
        let threads: Vec<_> = ring_of_threads(2).unwrap().into_iter().zip(devices).map(join).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(errors[0].contains("rank 1 finds no NCCL") && errors[0].contains("libnccl.so"), "{errors:?}");
}

#[test]
fn a_checkpoint_of_a_device_goes_on_on_a_cpu_and_one_with_other_moments_is_refused() {
    let Some(device) = device(0) else { return };
    let root = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(root.path().join("run")).unwrap();
    let mut there = trainer(config(&[]), moved(rounded(FAMILIES[0], true), device.clone()));
    steps(&mut there, 1);
    state::save(&there, Some(&folder)).unwrap();
    let mut here = trainer(config(&["compute.device=cpu"]), rounded(FAMILIES[0], true));
    assert!(state::restore(&mut here, &folder).unwrap());
    assert_eq!(cpu(&here.policy).parameters().trained_values(), values(&there.policy));
    let moments = |trainer: &Trainer| trainer.policy.state()[1].1.read(0..9).unwrap();
    assert_eq!(moments(&here), moments(&there));
    let mut other = trainer(config(&["optim.moments=eight_bit"]), moved(rounded(FAMILIES[0], true), device));
    let error = format!("{:#}", state::restore(&mut other, &folder).unwrap_err());
    assert!(error.contains("m was saved as F32") && error.contains("optim.moments"), "{error}");
}

#[test]
fn memory_of_every_class_is_the_same_after_the_rehearsal_and_after_many_steps() {
    let Some(device) = device(0) else { return };
    let policy = moved(rounded(FAMILIES[2], true), device.clone());
    let mut trainer =
        trainer(config(&["rollout.prompts_per_step=1", "rollout.max_new_tokens=2", "grpo.kl_coef=0.05"]), policy);
    let before = values(&trainer.policy);
    trainer.rehearse().unwrap();
    assert_eq!(values(&trainer.policy), before, "the rehearsal moves nothing");
    let classes = [Class::Weights, Class::Optimizer, Class::Gradients, Class::Activations, Class::Cache];
    // A step without signal makes no update, and leaves what sampling leaves: the most of several steps is compared.
    let mut most = |count: usize| {
        (0..count).fold([0; 5], |most, _| {
            trainer.step().unwrap();
            std::array::from_fn(|i| device.held(classes[i]).max(most[i]))
        })
    };
    let early = most(3);
    assert_eq!(most(27), early);
    assert_eq!(early[4], 0, "the cache is given back for the update");
}

#[test]
fn what_does_not_fit_is_said_before_the_first_step_with_the_class_and_the_key() {
    let Some(unlimited) = device_of(0, usize::MAX) else { return };
    let idle = trainer(config(&[]), moved(rounded(FAMILIES[1], true), unlimited)).policy.learner.held();
    for (set, class, advice) in [
        ("rollout.prompts_per_step=600", "cache asked for", "lower rollout.capacity or rollout.max_new_tokens"),
        ("compute.micro_batch_tokens=3000", "activations asked for", "lower compute.micro_batch_tokens"),
    ] {
        let Some(device) = device_of(0, idle + (1 << 20)) else { return };
        let policy = moved(rounded(FAMILIES[1], true), device);
        let mut trainer = trainer(config(&[set, "rollout.capacity=1000"]), policy);
        let error = format!("{:#}", trainer.rehearse().unwrap_err());
        assert!(error.contains(class) && error.contains(advice) && error.contains("before the first"), "{error}");
        assert_eq!(trainer.progress.step, 0);
    }
}

/// The objective of GRPO.
fn objective(micro: &MicroBatch, now: &TokenStats) -> TokenLosses {
    let config = LossConfig { kl_coef: 0.1, ..GrpoConfig::default().loss(0.0) };
    token_losses(now, micro, &config)
}

/// Settings of a training with a reference.
fn training(moments: MomentKind) -> Training {
    Training { adamw: OptimConfig::default().adamw(), moments, reference: true, aux_loss_coef: 0.0 }
}

#[test]
fn the_gradient_of_grpo_on_a_device_is_that_of_the_cpu() {
    let Some(device) = device(0) else { return };
    let (mut here, mut there) = (rounded(FAMILIES[1], true), moved(rounded(FAMILIES[1], true), device));
    let mut micros = micros(&samples(3), 20);
    let [expected, got] = [&mut here, &mut there].map(|policy| {
        policy.learner.begin(&training(MomentKind::Full)).unwrap();
        policy.learner.logprobs(Who::Reference, &micros, 1.0).unwrap()
    });
    for ((micro, expected), got) in micros.iter_mut().zip(expected).zip(got) {
        assert!(distance(&got.logprobs, &expected.logprobs) < 0.02, "the reference's log-probabilities");
        micro.ref_logprobs = Some(expected.logprobs.iter().map(|l| l - 0.3).collect());
        micro.old_logprobs = expected.logprobs.iter().map(|l| l - 0.05).collect();
    }
    let loss = |policy: &mut Policy| -> f64 {
        policy.learner.gradients(&micros, 1.0, &objective).unwrap().iter().map(|stats: &LossStats| stats.loss).sum()
    };
    // Gradients of before are none of the sum.
    loss(&mut there);
    let (expected, got) = (loss(&mut here), loss(&mut there));
    assert!((got - expected).abs() < 0.02 * expected.abs().max(0.1), "loss {got}, not {expected}");
    let got = on_device(&there).trainable.gradients.all().read().unwrap();
    let error = distance(&got, &cpu_learner(&here).gradients);
    assert!(error < 0.05, "relative error {error:.4}");
}

/// What makes a policy, with its name.
type Kind = (&'static str, fn() -> Policy);

/// Teachers with every kind of layer.
const TEACHERS: [Kind; 4] = [
    ("grouped heads", || rounded(FAMILIES[2], false)),
    ("experts", || mixture(MIXTURES[1])),
    ("latents and experts", || mixture(MIXTURES[4])),
    ("delta nets", || rounded(DELTA, true)),
];

#[test]
fn the_gradient_of_the_divergence_from_a_teacher_on_a_device_is_that_of_the_cpu() {
    // Of the rows behind the known tokens no distribution is.
    let divergences = [(1.0, VOCAB), (0.0, VOCAB - 3), (0.5, VOCAB - 3)];
    for ((what, teacher), (beta, vocab)) in TEACHERS.into_iter().flat_map(|kind| divergences.map(|of| (kind, of))) {
        let Some(device) = device(0) else { return };
        let mut here = rounded(FAMILIES[1], true);
        let mut there = moved(rounded(FAMILIES[1], true), device.clone());
        let (teacher_here, teacher_there) = (teacher(), moved(teacher(), device));
        let micros = micros(&samples(3), 20);
        let [expected, got] =
            [&teacher_here, &teacher_there].map(|teacher| teacher.learner.logprobs(Who::Policy, &micros, 0.9).unwrap());
        for (got, expected) in got.iter().zip(&expected) {
            let far = distance(&got.logprobs, &expected.logprobs);
            assert!(far < 0.02, "{what}: log-probabilities of the teacher by {far:.4}");
        }
        let distil = |policy: &mut Policy, teacher: &Policy| {
            let divergence = Divergence { beta, vocab };
            let teaching = Teaching { teacher: &*teacher.learner, divergence, coef: 0.7 };
            policy.learner.begin(&training(MomentKind::Full)).unwrap();
            let stats = policy.learner.distil(&micros, 0.9, &loss, teaching).unwrap();
            stats.iter().map(|stats| stats.divergence).sum::<f64>()
        };
        let (expected, got) = (distil(&mut here, &teacher_here), distil(&mut there, &teacher_there));
        let what = format!("{what}, beta {beta}");
        assert!(expected > 0.01 && (got - expected).abs() < 0.02 * expected, "{what}: {got}, not {expected}");
        let got = on_device(&there).trainable.gradients.all().read().unwrap();
        let error = distance(&got, &cpu_learner(&here).gradients);
        assert!(error < 0.05, "{what}: relative error {error:.4}");
    }
}

#[test]
fn steps_on_a_device_are_taught_by_teachers_of_every_kind() {
    for ((what, teacher), objective) in TEACHERS.into_iter().flat_map(|kind| ["sampled", "full"].map(|of| (kind, of))) {
        let Some(device) = device(0) else { return };
        let config = config(&[&format!("teacher={{path='tiny', objective='{objective}'}}")]);
        let student = moved(rounded(FAMILIES[1], true), device.clone());
        let keys = config.teacher.clone().unwrap();
        let teacher = Teacher::new(&keys, moved(teacher(), device), &student).unwrap();
        let before = values(&student);
        let mut trainer = trainer(config, student).taught_by(Some(teacher)).unwrap();
        let record = steps(&mut trainer, 1).remove(0);
        let measure = if objective == "full" { "teacher/divergence" } else { "teacher/kl_sampled" };
        assert!(record.get(measure).is_some_and(|far| far > 0.01), "{what}, {objective}: {record:?}");
        assert!(record.get("optim/updates") > Some(0.0) && values(&trainer.policy) != before, "{what}, {objective}");
    }
}

#[test]
fn a_teacher_that_is_elsewhere_is_refused() {
    let (Some(device), Some(other)) = (device(0), device(0)) else { return };
    let mut policy = moved(rounded(FAMILIES[1], true), device);
    let elsewhere = [rounded(FAMILIES[2], true), moved(rounded(FAMILIES[2], true), other)];
    for teacher in &elsewhere {
        let divergence = Divergence { beta: 1.0, vocab: VOCAB };
        let teaching = Teaching { teacher: &*teacher.learner, divergence, coef: 1.0 };
        let error = policy.learner.distil(&micros(&samples(1), 20), 1.0, &loss, teaching).unwrap_err();
        assert!(error.to_string().contains("the teacher is not on the policy's device"), "{error}");
    }
}

#[test]
fn an_update_without_a_finite_gradient_is_skipped_and_the_next_one_is_not() {
    let Some(device) = device(0) else { return };
    let mut policy = moved(rounded(FAMILIES[0], true), device);
    policy.learner.begin(&training(MomentKind::Full)).unwrap();
    let (micros, before) = (micros(&samples(1), 100), values(&policy));
    let update = |factor: f32, policy: &mut Policy| {
        let loss = |micro: &MicroBatch, _: &TokenStats| TokenLosses {
            gradient: vec![factor; micro.rows.len()],
            ..TokenLosses::default()
        };
        policy.learner.gradients(&micros, 1.0, &loss).unwrap();
        policy.update(1e-3).unwrap()
    };
    assert_eq!(update(f32::NAN, &mut policy), Update::Skipped);
    assert_eq!((values(&policy), policy.version), (before, 0));
    assert!(matches!(update(-0.1, &mut policy), Update::Applied { grad_norm } if grad_norm.is_finite()));
    assert_eq!(policy.version, 1);
}

#[test]
fn supervised_steps_on_a_device_learn() {
    let Some(device) = device(0) else { return };
    let text = "steps = 3\ntokens_per_step = 10\nmodel = {}\ndata = {dataset = 'countdown'}
        optim = {lr = 1e-2}\ncompute = {micro_batch_tokens = 12}";
    let config: SftConfig = strict::load(text, "the test's config", &[]).unwrap();
    let mut trainer = SftTrainer::new(&config, 3, moved(rounded(FAMILIES[2], true), device)).unwrap();
    let before = values(&trainer.policy);
    trainer.rehearse().unwrap();
    assert_eq!(values(&trainer.policy), before, "the rehearsal moves nothing");
    let sample = SftSample::completion(vec![3, 1, 4, 1, 5], 2);
    let losses: Vec<f64> = (0..3).map(|_| trainer.step(std::slice::from_ref(&sample)).unwrap().loss).collect();
    assert!(losses[2] < losses[0] - 0.1, "{losses:?}");
}

#[test]
fn the_embedded_model_is_one_that_the_kernels_compute() {
    let Some(device) = device(0) else { return };
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/countdown/base");
    let policy = Policy::on_device(ModelFolder::read(&base).unwrap(), false, 1, device).unwrap();
    let micro = MicroBatch {
        tokens: vec![1, 2],
        positions: vec![0, 1],
        segments: vec![Segment::alone(0..2)],
        rows: vec![0, 1],
        targets: vec![2, 3],
        ..MicroBatch::default()
    };
    let on_cpu = Policy::new(ModelFolder::read(&base).unwrap(), reckon::model::CpuOptions::default());
    let logprobs = |policy: &Policy| {
        policy.learner.logprobs(Who::Policy, std::slice::from_ref(&micro), 1.0).unwrap().remove(0).logprobs
    };
    let (got, expected) = (logprobs(&policy), logprobs(&on_cpu));
    assert!(distance(&got, &expected) < 0.02, "{got:?}, not {expected:?}");
}
