//! An adapter on a frozen base on a device, its kernels run on this machine's processor, against the CPU's in fp32.

use half::bf16;
use reckon::batch::MicroBatch;
use reckon::config::LoraConfig;
use reckon::model::{CpuReference, DeviceModel, DeviceReference, ModelFolder, SaveDtype};
use reckon::ops::team::Team;
use reckon::optim::{AdamW, AdamWConfig, DeviceAdamW, MomentKind};
use reckon::policy::Policy;
use reckon::ranks::{DeviceRanks, Ranks};
use reckon_datasets::Counted;

use super::device_model::{TEMPERATURE, check_gradients, distance, loss, rounded};
use super::host_device::device;
use super::models::{FAMILIES, cpu, cpu_mut, micros, samples};

/// A trained adapter on a tiny model, all in numbers that bf16 holds exactly, so that both sides start alike.
pub(super) fn adapted(architecture: &str, rank: usize, targets: &[&str]) -> Policy {
    adapted_of(rounded(architecture, true), rank, targets)
}

/// The same on another model.
pub(super) fn adapted_of(base: Policy, rank: usize, targets: &[&str]) -> Policy {
    let folder = tempfile::tempdir().unwrap();
    base.save(folder.path(), SaveDtype::Bf16).unwrap();
    let targets = targets.iter().map(|&target| target.to_owned()).collect();
    let lora = LoraConfig { rank, alpha: 6.0, targets: Some(targets), ..LoraConfig::default() };
    let model = ModelFolder::read_frozen(folder.path()).unwrap();
    let mut policy = Policy::new(
        model.adapted(|base| lora.start(&base.layout, "base", 7)).unwrap(),
        reckon::model::CpuOptions::default(),
    );
    let mut noise = Counted::new(&[5]);
    let values = cpu_mut(&mut policy).trainable().values;
    values.iter_mut().for_each(|value| *value = bf16::from_f32(*value + 0.05 * noise.normal() as f32).to_f32());
    policy
}

fn on_device(policy: &Policy) -> Option<DeviceModel> {
    Some(DeviceModel::new(device(0)?, &cpu(policy).decoder, cpu(policy).parameters()).unwrap())
}

fn logprobs(model: &DeviceModel, micro: &MicroBatch) -> Vec<f32> {
    model.logprobs(None, micro, TEMPERATURE).unwrap().logprobs
}

fn logprobs_as(model: &DeviceModel, reference: &DeviceReference, micro: &MicroBatch) -> Vec<f32> {
    model.logprobs(Some(reference), micro, TEMPERATURE).unwrap().logprobs
}

#[test]
fn an_adapter_computes_and_learns_on_a_device_what_it_does_on_the_cpu() {
    for (family, rank, targets, recompute) in [
        (0, 4, &["*_proj"][..], true),
        (1, 3, &["*_proj"], false),
        (2, 4, &["*_proj"], true),
        (2, 5, &["k_proj", "up_proj", "down_proj"], true),
    ] {
        let (architecture, what) = (FAMILIES[family], format!("{}, rank {rank}, {targets:?}", FAMILIES[family]));
        check_adapter(&what, &mut adapted(architecture, rank, targets), recompute);
    }
}

/// Losses and gradients of an adapter against the CPU's.
pub(super) fn check_adapter(what: &str, policy: &mut Policy, recompute: bool) {
    // What an adapter adds is rounded by itself, and once more in the sum.
    let Some(model) = check_gradients(what, policy, recompute, 0.03) else { return };
    assert_eq!(model.trainable.entries, cpu(policy).parameters().trained_entries());
}

#[test]
fn the_reference_on_a_device_is_the_base_without_its_adapter_or_a_copy_of_what_learns() {
    let policy = adapted(FAMILIES[1], 4, &["*_proj"]);
    let micros = micros(&samples(4), 1000);
    let Some(model) = on_device(&policy) else { return };
    let reference = DeviceReference::of(&model).unwrap();
    let of_base = logprobs_as(&model, &reference, &micros[0]);
    let expected = &cpu(&policy).logprobs(Some(&CpuReference::of(cpu(&policy).parameters())), &micros, TEMPERATURE)[0];
    assert!(distance(&of_base, &expected.logprobs) < 0.01);
    let adapted = logprobs(&model, &micros[0]);
    let expected = &cpu(&policy).logprobs(None, &micros, TEMPERATURE)[0];
    assert!(distance(&adapted, &expected.logprobs) < 0.01);
    assert_ne!(of_base, adapted);

    // With an adapter of zeros the model is its base, to the bit.
    model.trainable.upload(&vec![0.0; model.trainable.values.all().len()]).unwrap();
    assert_eq!(logprobs(&model, &micros[0]), of_base);

    // Where all learns, the reference stays what the model was.
    let full = rounded(FAMILIES[1], true);
    let Some(model) = on_device(&full) else { return };
    let (before, reference) = (logprobs(&model, &micros[0]), DeviceReference::of(&model).unwrap());
    model
        .trainable
        .upload(&cpu(&full).parameters().trained_values().iter().map(|w| w * 0.5).collect::<Vec<_>>())
        .unwrap();
    assert_ne!(logprobs(&model, &micros[0]), before);
    assert_eq!(logprobs_as(&model, &reference, &micros[0]), before);
}

#[test]
fn updates_of_an_adapter_follow_those_of_the_cpu_and_leave_its_base_alone() {
    let config = AdamWConfig { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, max_grad_norm: 0.5 };
    let mut policy = adapted(FAMILIES[2], 4, &["*_proj"]);
    let (start, micros) = (cpu(&policy).parameters().trained_values().to_vec(), micros(&samples(3), 1000));
    let Some(model) = on_device(&policy) else { return };
    let base = logprobs_as(&model, &DeviceReference::of(&model).unwrap(), &micros[0]);
    let mut on_device = DeviceAdamW::new(config, MomentKind::Full, &model, DeviceRanks::default()).unwrap();
    let mut on_cpu =
        AdamW::new(config, MomentKind::Full, cpu(&policy).parameters().trained_entries(), &Ranks::alone()).unwrap();
    for _ in 0..3 {
        model.trainable.gradients.all().zero().unwrap();
        model.gradient(&micros[0], TEMPERATURE, &loss).unwrap();
        on_device.update(&model, 1e-3).unwrap();
        let (gradient, _) = cpu(&policy).gradients(&micros, TEMPERATURE, &loss);
        on_cpu.update(&Team::alone(), cpu_mut(&mut policy).trainable(), &gradient, 1e-3).unwrap();
    }
    let way = |values: &[f32]| values.iter().zip(&start).map(|(a, b)| a - b).collect::<Vec<f32>>();
    let error = distance(&way(&model.trainable.download().unwrap()), &way(cpu(&policy).parameters().trained_values()));
    assert!(error < 0.25, "relative error of the way {error:.3}");
    let reference = DeviceReference::of(&model).unwrap();
    assert_eq!(logprobs_as(&model, &reference, &micros[0]), base, "the base has moved");
}
