//! The whole model on a device, its kernels run on this machine's processor, against the CPU's decoder in fp32.

use half::bf16;
use reckon::batch::{LossStats, MicroBatch, TokenLosses, TokenStats};
use reckon::model::DeviceModel;
use reckon::ops::team::Team;
use reckon::optim::{AdamW, AdamWConfig, DeviceAdamW, MomentKind, Update};
use reckon::policy::Policy;
use reckon::ranks::{DeviceRanks, Ranks};

use super::host_device::device;
use super::models::{FAMILIES, cpu, cpu_mut, micros, samples, tiny_with};

pub(super) const TEMPERATURE: f32 = 0.9;

/// A loss whose gradient depends on the log-probabilities.
pub(super) fn loss(micro: &MicroBatch, stats: &TokenStats) -> TokenLosses {
    let rows = stats.logprobs.iter().zip(&micro.loss_weights);
    let value = rows.clone().map(|(&l, &w)| f64::from(w * (l + 0.1 * l * l))).sum();
    let gradient = rows.map(|(l, w)| w * (1.0 + 0.2 * l)).collect();
    TokenLosses { gradient, stats: LossStats { loss: value, ..LossStats::default() }, ..TokenLosses::default() }
}

/// A tiny model whose weights bf16 holds exactly, so that both sides start alike.
pub(super) fn rounded(architecture: &str, tied: bool) -> Policy {
    rounded_of(tiny_with(architecture, tied, 32))
}

/// The same of another model.
pub(super) fn rounded_of(mut policy: Policy) -> Policy {
    for entry in cpu(&policy).parameters().trained_entries().to_vec() {
        // Norms of 3 make scores of 50, whose rounding to bf16 alone moves probabilities by a fifth.
        let of_scores = ["q_norm", "k_norm", "_a_layernorm"].iter().any(|norm| entry.name.contains(norm));
        let scale = if of_scores { 1.0 / 3.0 } else { 1.0 };
        let values = &mut cpu_mut(&mut policy).trainable().values[entry.range];
        values.iter_mut().for_each(|w| *w = bf16::from_f32(*w * scale).to_f32());
    }
    policy
}

pub(super) fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let size: f64 = b.iter().map(|&b| square(b)).sum();
    (a.iter().zip(b).map(|(a, b)| square(a - b)).sum::<f64>() / size.max(1e-30)).sqrt()
}

#[test]
fn loss_and_gradients_of_a_whole_model_agree_with_the_cpu() {
    for (architecture, tied, recompute) in [(0, true, true), (1, false, false), (2, true, true), (2, false, false)]
        .map(|(family, tied, recompute)| (FAMILIES[family], tied, recompute))
    {
        check_model(architecture, &mut rounded(architecture, tied), recompute);
    }
}

/// Loss, gradients, log-probabilities and entropies of a model against the CPU's.
pub(super) fn check_model(what: &str, policy: &mut Policy, recompute: bool) {
    let Some(model) = check_gradients(what, policy, recompute, 0.02) else { return };
    let micros = micros(&samples(4), 30);
    for (micro, expected) in micros.iter().zip(cpu(policy).logprobs(None, &micros, TEMPERATURE)) {
        let stats = model.logprobs(None, micro, TEMPERATURE).unwrap();
        assert!(distance(&stats.logprobs, &expected.logprobs) < 0.01, "{what}: log-probabilities");
        assert!(distance(&stats.entropies, &expected.entropies) < 0.01, "{what}: entropies");
    }
}

/// Losses and gradients of what is trained against the CPU's; the whole gradient may have a relative error of `limit`.
pub(super) fn check_gradients(what: &str, policy: &mut Policy, recompute: bool, limit: f64) -> Option<DeviceModel> {
    let (device, micros) = (device(0)?, micros(&samples(4), 30));
    assert!(micros.len() > 1, "gradients of several micro-batches are added");
    let (gradient, losses) = cpu(policy).gradients(&micros, TEMPERATURE, &loss);
    cpu_mut(policy).decoder.recompute = recompute;
    let model = DeviceModel::new(device, &cpu(policy).decoder, cpu(policy).parameters()).unwrap();
    for (micro, expected) in micros.iter().zip(losses) {
        let (loss, expected) = (model.gradient(micro, TEMPERATURE, &loss).unwrap().loss, expected.loss);
        assert!((loss - expected).abs() < 0.01 * expected.abs(), "{what}: loss {loss}, not {expected}");
    }
    let got = model.trainable.gradients.all().read().unwrap();
    assert_gradients_near(what, policy, &got, &gradient, [0.05, limit]);
    Some(model)
}

/// Compares a gradient of what `policy` trains with the CPU's: the relative error of each tensor, and of all together, is
/// below these limits.
pub(super) fn assert_gradients_near(what: &str, policy: &Policy, got: &[f32], gradient: &[f32], limits: [f64; 2]) {
    let [each, whole] = limits;
    for entry in cpu(policy).parameters().trained_entries() {
        let (got, expected) = (&got[entry.range.clone()], &gradient[entry.range.clone()]);
        // The keys' biases shift all scores of a row alike: their gradient is rounding.
        if entry.name.contains("k_proj.bias") {
            continue;
        }
        let error = distance(got, expected);
        assert!(error < each, "{what}: {}: relative error {error:.3}", entry.name);
    }
    let error = distance(got, gradient);
    assert!(error < whole, "{what}: relative error of the whole gradient {error:.4}");
}

#[test]
fn updates_on_a_device_follow_those_of_the_cpu_and_repeat_to_the_bit() {
    let config = AdamWConfig { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, max_grad_norm: 0.5 };
    let mut policy = rounded(FAMILIES[1], true);
    let start = cpu(&policy).parameters().clone();
    let micros = micros(&samples(3), 1000);
    let run = |kind: MomentKind| {
        let model = DeviceModel::new(device(0)?, &cpu(&policy).decoder, &start).unwrap();
        let mut optimizer = DeviceAdamW::new(config, kind, &model, DeviceRanks::default()).unwrap();
        let updates = (0..3).map(|_| {
            model.trainable.gradients.all().zero().unwrap();
            model.gradient(&micros[0], TEMPERATURE, &loss).unwrap();
            optimizer.update(&model, 1e-3).unwrap()
        });
        let updates: Vec<Update> = updates.collect();
        let way = model
            .trainable
            .download()
            .unwrap()
            .iter()
            .zip(start.trained_values())
            .map(|(a, b)| a - b)
            .collect::<Vec<f32>>();
        Some((way, updates))
    };
    let Some((way, updates)) = run(MomentKind::Full) else { return };
    assert_eq!(run(MomentKind::Full).unwrap(), (way.clone(), updates), "a second run gives other bits");
    let (eight_bit, _) = run(MomentKind::EightBit).unwrap();
    let mut optimizer = AdamW::new(config, MomentKind::Full, start.trained_entries(), &Ranks::alone()).unwrap();
    for _ in 0..3 {
        let (gradient, _) = cpu(&policy).gradients(&micros, TEMPERATURE, &loss);
        optimizer.update(&Team::alone(), cpu_mut(&mut policy).trainable(), &gradient, 1e-3).unwrap();
    }
    let expected: Vec<f32> =
        cpu(&policy).parameters().trained_values().iter().zip(start.trained_values()).map(|(a, b)| a - b).collect();
    // The first updates of AdamW are signs: where a gradient is near 0, rounding to bf16 decides.
    for (what, way) in [("full", way), ("eight bits", eight_bit)] {
        let error = distance(&way, &expected);
        assert!(error < 0.25, "{what}: relative error of the way {error:.3}");
    }
}

#[test]
fn a_gradient_that_is_not_finite_moves_nothing() {
    let Some(device) = device(0) else { return };
    let policy = rounded(FAMILIES[0], true);
    let model = DeviceModel::new(device, &cpu(&policy).decoder, cpu(&policy).parameters()).unwrap();
    let config = AdamWConfig { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, max_grad_norm: 1.0 };
    let mut optimizer = DeviceAdamW::new(config, MomentKind::Full, &model, DeviceRanks::default()).unwrap();
    model.trainable.gradients.part(5..6).write(&[f32::NAN]).unwrap();
    assert_eq!(optimizer.update(&model, 1e-3).unwrap(), Update::Skipped);
    assert_eq!(model.trainable.download().unwrap(), cpu(&policy).parameters().trained_values());
}

#[test]
fn shapes_without_kernels_are_refused_by_name() {
    let Some(device) = device(0) else { return };
    let policy = tiny_with(FAMILIES[0], true, 16);
    let error = DeviceModel::new(device, &cpu(&policy).decoder, cpu(&policy).parameters()).unwrap_err().to_string();
    assert!(error.contains("head size 16") && error.contains("32, 64, 128 and 256"), "{error}");
}
