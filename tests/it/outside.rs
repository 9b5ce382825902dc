//! The losses of teaching are those of TRL and transformers, to a hundred-thousandth, with their gradients.
//! `scripts/teaching_fixtures.py` wrote the expected values.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use reckon::config::SftConfig;
use reckon::model::{CpuOptions, ModelFolder};
use reckon::ops::linear::{Linear, PackedMatrix, Precision};
use reckon::ops::linear_logprob::distill::{self, Divergence, Slopes, Teacher};
use reckon::ops::linear_logprob::{self, Logits, Rows};
use reckon::ops::team::Team;
use reckon::policy::Policy;
use reckon::sft::{SftSample, SftTrainer};
use reckon::strict;
use serde::Deserialize;

use super::models::{cpu, cpu_learner};

#[derive(Deserialize)]
struct Fixture {
    divergences: Divergences,
    supervised: BTreeMap<String, Supervised>,
}

#[derive(Deserialize)]
struct Divergences {
    inputs: Inputs,
    cases: Vec<Case>,
    sampled: Sampled,
}

#[derive(Deserialize)]
struct Inputs {
    student: Vec<f32>,
    teacher: Vec<f32>,
    student_head: Vec<f32>,
    teacher_head: Vec<f32>,
    mask: Vec<u8>,
    targets: Vec<u32>,
    vocab: usize,
}

#[derive(Deserialize)]
struct Case {
    beta: f32,
    temperature: f32,
    loss: f64,
    gkd: f64,
    d_hidden: Vec<f32>,
    d_head: Vec<f32>,
}

#[derive(Deserialize)]
struct Sampled {
    loss: f64,
    d_hidden: Vec<f32>,
    d_head: Vec<f32>,
}

#[derive(Deserialize)]
struct Supervised {
    samples: Vec<Vec<u32>>,
    trained: Vec<Vec<[usize; 2]>>,
    loss: f64,
    grad_norm: f64,
    gradients: BTreeMap<String, Vec<f32>>,
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn fixture() -> Fixture {
    serde_json::from_slice(&fs::read(fixtures().join("teaching.json")).unwrap()).unwrap()
}

/// Asserts that values are equal to a hundred-thousandth of the largest of them, or of 1 where all are less.
fn near(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1f32, |largest, value| largest.max(value.abs()));
    let difference = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference <= 1e-5 * largest, "{what} differs by {difference} of {largest}");
}

/// The student's and the teacher's output matrix, packed.
fn heads(inputs: &Inputs, team: &Team) -> (PackedMatrix, PackedMatrix) {
    let pack = |values: &[f32]| PackedMatrix::new(team, values, values.len() / inputs.vocab, Precision::Fp32);
    (pack(&inputs.student_head), pack(&inputs.teacher_head))
}

#[test]
fn divergences_over_the_vocabulary_are_those_of_trls_distillation_trainer() {
    let Divergences { inputs, cases, .. } = fixture().divergences;
    let team = &Team::alone();
    let (student, teacher) = heads(&inputs, team);
    let head = Linear::trained(&student, &inputs.student_head, 0..inputs.student_head.len());
    let teacher_head = Linear::frozen(&teacher, None);
    let n = inputs.mask.iter().filter(|&&counts| counts == 1).count() as f32;
    let weights: Vec<f32> = inputs.mask.iter().map(|&counts| f32::from(counts) / n).collect();
    let nothing = vec![0.0; weights.len()];
    assert_eq!(cases.len(), 6);
    for Case { beta, temperature, loss, gkd, d_hidden, d_head } in cases {
        let rows = Rows { h: &inputs.student, targets: &inputs.targets, temperature };
        let (mut dh, mut dw) = (vec![0.0; inputs.student.len()], vec![0.0; inputs.student_head.len()]);
        let both = (Divergence { beta, vocab: inputs.vocab }, Slopes { logprob: &nothing, divergence: &weights });
        let (mut a, mut b) = (Logits::default(), Logits::default());
        let taught = Teacher { h: &inputs.teacher, head: &teacher_head };
        let found = distill::backward(team, rows, &head, taught, both, [&mut a, &mut b], &mut dh, &mut dw);
        let ours: f64 = found.iter().zip(&weights).map(|(d, w)| f64::from(d * w)).sum();
        let what = format!("beta {beta}, temperature {temperature}");
        assert!((ours - loss).abs() < 1e-5 * loss.max(1.0), "{what}: {ours}, TRL says {loss}");
        assert!((ours - gkd).abs() < 1e-5 * gkd.max(1.0), "{what}: {ours}, TRL's GKD says {gkd}");
        near(&format!("{what}: hidden states"), &dh, &d_hidden);
        near(&format!("{what}: output matrix"), &dw, &d_head);
    }
}

#[test]
fn the_sampled_objective_has_the_gradient_that_autograd_gives() {
    let Divergences { inputs, sampled, .. } = fixture().divergences;
    let team = &Team::alone();
    let (student, teacher) = heads(&inputs, team);
    let head = Linear::trained(&student, &inputs.student_head, 0..inputs.student_head.len());
    let teacher_head = Linear::frozen(&teacher, None);
    let of = |h, head: &Linear, logits: &mut Logits| {
        linear_logprob::forward(team, Rows { h, targets: &inputs.targets, temperature: 1.0 }, head, logits).0
    };
    let (mut logits, mut others) = (Logits::default(), Logits::default());
    let theirs = of(&inputs.teacher, &teacher_head, &mut others);
    let ours = of(&inputs.student, &head, &mut logits);
    let n = inputs.mask.iter().filter(|&&counts| counts == 1).count() as f32;
    let gaps = ours.iter().zip(&theirs).zip(&inputs.mask);
    // The advantage is minus the gap, and the loss falls with it: on the tokens that were sampled the ratio is 1.
    let slopes: Vec<f32> = gaps.map(|((o, t), &counts)| (o - t) * f32::from(counts) / n).collect();
    let loss: f64 = slopes.iter().map(|&slope| f64::from(slope)).sum();
    assert!((loss - sampled.loss).abs() < 1e-5, "{loss}, not {}", sampled.loss);
    let rows = Rows { h: &inputs.student, targets: &inputs.targets, temperature: 1.0 };
    let (mut dh, mut dw) = (vec![0.0; inputs.student.len()], vec![0.0; inputs.student_head.len()]);
    linear_logprob::backward(
        team,
        rows,
        &head,
        linear_logprob::Slopes { logprobs: &slopes, entropies: &[] },
        &mut logits,
        &mut dh,
        &mut dw,
    );
    near("hidden states", &dh, &sampled.d_hidden);
    near("output matrix", &dw, &sampled.d_head);
}

#[test]
fn the_supervised_loss_of_packed_samples_is_transformers_of_a_padded_batch() {
    let text = "steps = 1\nsamples_per_step = 3\nmodel = {}\ndata = {dataset = 'countdown'}\n\
                optim = {max_grad_norm = 0.0}\ncompute = {device = 'cpu', micro_batch_tokens = M}";
    for (name, expected) in fixture().supervised {
        let samples: Vec<SftSample> = expected
            .samples
            .iter()
            .zip(&expected.trained)
            .map(|(tokens, trained)| {
                let trained: Vec<Range<usize>> = trained.iter().map(|&[start, end]| start..end).collect();
                SftSample { tokens: tokens.clone(), trained }
            })
            .collect();
        // All in one micro-batch, and each in its own.
        for tokens in ["512", "16"] {
            let config: SftConfig = strict::load(&text.replace('M', tokens), "the test's config", &[]).unwrap();
            let folder = ModelFolder::read(&fixtures().join("models").join(&name)).unwrap();
            let mut trainer = SftTrainer::new(&config, 1, Policy::new(folder, CpuOptions::default())).unwrap();
            let held_out = trainer.loss(&samples).unwrap();
            let report = trainer.step(&samples).unwrap();
            for loss in [held_out, report.loss] {
                assert!((loss - expected.loss).abs() < 1e-5, "{name}: {loss}, transformers says {}", expected.loss);
            }
            let norm = report.grad_norm;
            assert!((norm - expected.grad_norm).abs() < 1e-4, "{name}: {norm}, transformers {}", expected.grad_norm);
            let entries = cpu(&trainer.policy).parameters().trained_entries();
            let mut compared = 0;
            for entry in entries.iter().filter(|entry| expected.gradients.contains_key(&entry.name)) {
                let gradient = &cpu_learner(&trainer.policy).gradients[entry.range.clone()];
                near(&format!("{name}: {}", entry.name), gradient, &expected.gradients[&entry.name]);
                compared += 1;
            }
            assert_eq!(compared, expected.gradients.len(), "{name}: all that stands there is compared");
        }
    }
}
