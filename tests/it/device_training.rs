//! Training with the model on a device, its kernels run on this machine's processor.

use reckon::checkpoint::tensors;
use reckon::config::OptimConfig;
use reckon::grpo::MicroBatch;
use reckon::model::shards::Reader;
use reckon::model::{Companions, ModelFolder, SaveDtype};
use reckon::ops::device::Device;
use reckon::optim::{MomentKind, Optimizer, Update};
use reckon::policy::{Model, Policy};

use super::host_device::device;
use super::models::{FAMILIES, cpu, micros, samples, tiny_with};

/// A tiny model brought to a device.
fn on(device: Device, architecture: &str) -> Policy {
    let policy = tiny_with(architecture, true, 32);
    let weights = cpu(&policy).parameters.clone();
    let Policy { config, tokenizer, .. } = policy;
    let folder = ModelFolder { config, tokenizer, companions: Companions::default(), weights };
    Policy::on_device(folder, false, 1, device).unwrap()
}

fn values(policy: &Policy) -> Vec<f32> {
    let Model::Device(model, _) = &policy.model else { panic!("it is on a CPU") };
    model.learnt.download().unwrap()
}

/// The log-likelihood of the targets, so weighted, and its gradient.
fn likelihood(policy: &mut Policy, micros: &[MicroBatch]) -> f64 {
    let losses = policy.gradients(micros, 1.0, &|micro, stats| {
        let loss = stats.logprobs.iter().zip(&micro.loss_weights).map(|(&l, &w)| f64::from(-l * w)).sum::<f64>();
        (micro.loss_weights.iter().map(|w| -w).collect(), loss)
    });
    losses.unwrap().iter().sum()
}

#[test]
fn weights_and_moments_go_through_a_checkpoint_and_training_goes_on_to_the_bit() {
    let micros = micros(&samples(1), 30);
    for moments in [MomentKind::Full, MomentKind::EightBit] {
        let Some(device) = device(0) else { return };
        let config = OptimConfig { moments, ..OptimConfig::default() };
        let start = |device: &Device| {
            let policy = on(device.clone(), FAMILIES[2]);
            let optimizer = Optimizer::new(&config, &policy).unwrap();
            (policy, optimizer)
        };
        let steps = |(policy, optimizer): &mut (Policy, Optimizer), count: usize| {
            let step = |_| (likelihood(policy, &micros), optimizer.update(policy, 1e-2).unwrap());
            (0..count).map(step).collect::<Vec<(f64, Update)>>()
        };
        let mut straight = start(&device);
        let mut expected = steps(&mut straight, 3);

        let folder = tempfile::tempdir().unwrap();
        let mut first = start(&device);
        steps(&mut first, 2);
        first.0.save(folder.path(), SaveDtype::F32).unwrap();
        tensors::write(&folder.path().join("moments"), &first.1.tensors()).unwrap();
        let mut resumed = start(&device);
        resumed.0.restore(folder.path()).unwrap();
        let mut file = Reader::open_file(folder.path(), "moments").unwrap();
        for (name, tensor) in resumed.1.tensors_mut(first.1.count()) {
            tensors::read(&mut file, name, tensor).unwrap();
        }
        assert_eq!(values(&resumed.0), values(&first.0), "{moments:?}");
        assert_eq!(steps(&mut resumed, 1), expected.split_off(2), "{moments:?}: other metrics");
        assert_eq!(values(&resumed.0), values(&straight.0), "{moments:?}: other weights");
        let bits = |optimizer: &Optimizer| {
            let read = |(_, tensor): &(&str, &dyn tensors::Tensor)| tensor.read(0..tensor.count()).unwrap();
            optimizer.tensors().iter().map(read).collect::<Vec<_>>()
        };
        assert_eq!(bits(&resumed.1), bits(&straight.1), "{moments:?}: other moments");
        assert!(expected[0].0 > expected[1].0, "it learns: {expected:?}");

        // Moments kept in another way are refused, not read as something else.
        let other = if moments == MomentKind::Full { MomentKind::EightBit } else { MomentKind::Full };
        let mut optimizer = Optimizer::new(&OptimConfig { moments: other, ..config.clone() }, &resumed.0).unwrap();
        let (name, tensor) = optimizer.tensors_mut(0).remove(0);
        let error = tensors::read(&mut file, name, tensor).unwrap_err().to_string();
        assert!(error.contains("optim.moments"), "{error}");
    }
}

#[test]
fn moments_of_eight_bits_are_refused_on_a_cpu() {
    let config = OptimConfig { moments: MomentKind::EightBit, ..OptimConfig::default() };
    let error = Optimizer::new(&config, &tiny_with(FAMILIES[0], true, 32)).unwrap_err().to_string();
    assert!(error.contains("compute.device"), "{error}");
}
