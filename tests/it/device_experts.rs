//! Experts on a device, their kernels run on this machine's processor, against the CPU's.

use reckon::batch::{Beside, Choices, MicroBatch, RouterReplay};
use reckon::grpo::TrainSample;
use reckon::model::{DeviceModel, DeviceReference};
use reckon::ops::experts::device::add_up;
use reckon::ops::experts::{Dispatch, Scores, weigh_back};
use reckon::ops::swiglu;
use reckon::ops::team::Team;
use reckon::policy::{Model, Policy};
use reckon::rollout::{Completion, Engine};
use reckon_datasets::Counted;
use serde_json::json;

use super::device_latent::latent_with;
use super::device_lora::adapted_of;
use super::device_model::{TEMPERATURE, assert_gradients_near, distance, loss, rounded};
use super::host_device::device;
use super::kernels::{BF16, check, down, empty, random, to_bf16, up};
use super::models::{MIXTURES, cpu, cpu_mut, generate, generate_by, micros, prompts, sampling};
use super::sampling::train_samples;

#[test]
fn rows_weighed_before_the_last_product_agree_with_those_weighed_behind_it() {
    for (t, f) in [(1, 8), (7, 48), (300, 264)] {
        let (gate_up, dy, weights) = (random(1, t * 2 * f), random(2, t * f), random(3, t));
        let team = &Team::alone();
        let (mut y, mut d_gate_up, mut d_weights) = (vec![0f32; t * f], vec![0f32; t * 2 * f], vec![0f32; t]);
        swiglu::backward(team, &gate_up, f, &dy, &mut d_gate_up, &mut y);
        weigh_back(team, &weights, &dy, &mut y, &mut d_gate_up, &mut d_weights);
        let expected: [(&[f32], f64); 3] = [(&y, BF16), (&d_gate_up, BF16), (&d_weights, 1e-4)];
        check(&format!("weighed swiglu {t} x {f}"), &expected, |d| {
            let (gate_up, dy, weights) = (up(d, &to_bf16(&gate_up)), up(d, &to_bf16(&dy)), up(d, &weights));
            let (y, d_weights) = (empty(d, t * f), empty(d, t));
            swiglu::device::weighed_forward(gate_up.all(), f, weights.all(), y.all()).unwrap();
            swiglu::device::weighed_backward(gate_up.all(), f, weights.all(), dy.all(), d_weights.all()).unwrap();
            vec![down(y.all()), down(gate_up.all()), d_weights.all().read().unwrap()]
        });
    }
}

#[test]
fn what_experts_give_is_added_up_in_the_order_of_a_row_s_experts() {
    for (t, k, active, experts) in [(1, 8, 1, 2), (5, 40, 3, 6), (70, 264, 2, 4)] {
        let chosen: Vec<u32> =
            (0..t * active).map(|choice| ((choice / active * 7 + choice % active * 5) % experts) as u32).collect();
        let mut dispatch = Dispatch::default();
        dispatch.set(&chosen, active, experts);
        let (y, before) = (random(1, t * active * k), random(2, t * k));
        let mut sums = before.clone();
        dispatch.add_up(&Team::alone(), &y, None, k, &mut sums);
        assert_eq!(dispatch.rows().count(), t * active);
        check(&format!("sums of {active} of {experts} experts, {t} x {k}"), &[(&sums, BF16)], |d| {
            let (y, places, out) = (up(d, &to_bf16(&y)), up(d, dispatch.places()), up(d, &to_bf16(&before)));
            add_up(y.all(), places.all(), out.all(), k).unwrap();
            vec![down(out.all())]
        });
    }
    let Some(d) = device(0) else { return };
    add_up(empty(&d, 0).all(), empty(&d, 0).all(), empty(&d, 0).all(), 8).unwrap();
}

/// Completions of a policy, with the experts of their tokens.
fn sampled(policy: &Policy) -> Vec<TrainSample> {
    let prompts = prompts(3);
    train_samples(&prompts, &generate(policy, &prompts, &sampling(12), 1, 5))
}

/// Whole sequences whose tokens go to the experts that they were sampled with.
fn replayed(samples: &[TrainSample]) -> Vec<MicroBatch> {
    let mut micros = micros(samples, 60);
    micros.iter_mut().for_each(|micro| micro.router_replay = RouterReplay::Rollout);
    micros
}

fn model(policy: &Policy) -> Option<DeviceModel> {
    Some(DeviceModel::new(device(0)?, &cpu(policy).decoder, cpu(policy).parameters()).unwrap())
}

/// The gradients of a model on a device, and what its routers chose for them.
fn gradients(model: &DeviceModel, micros: &[MicroBatch], slopes: Option<&[f32]>) -> (Vec<f32>, Choices) {
    model.trainable.gradients.all().zero().unwrap();
    for micro in micros {
        let beside = Beside { balance_slopes: slopes, ..Beside::default() };
        model.taught(micro, TEMPERATURE, &loss, beside).unwrap();
    }
    (model.trainable.gradients.all().read().unwrap(), model.take_choices())
}

/// A tiny model of a family whose weights bf16 holds exactly, of sizes that have kernels.
pub(super) fn mixture(architecture: &str) -> Policy {
    if architecture.starts_with("Deepseek") {
        let groups = json!({ "n_routed_experts": 8, "n_group": 4, "first_k_dense_replace": 1 });
        latent_with(architecture, true, groups)
    } else {
        rounded(architecture, true)
    }
}

/// Policies of all families with all weights trained, and with an adapter on all of their matrices.
fn policies() -> impl Iterator<Item = (String, Policy)> {
    MIXTURES.into_iter().flat_map(|architecture| {
        let full = (format!("{architecture}, all weights"), mixture(architecture));
        let targets = ["*_proj*", "shared_expert_gate"];
        let targets = if architecture == MIXTURES[0] { &targets[..] } else { &targets[..1] };
        [full, (format!("{architecture}, an adapter"), adapted_of(mixture(architecture), 4, targets))]
    })
}

/// With the same experts: where rounding to bf16 decides whether a router takes one or another, nothing is alike.
#[test]
fn gradients_through_experts_agree_with_the_cpu_s_where_both_take_the_same() {
    for (what, mut policy) in policies() {
        let micros = replayed(&sampled(&policy));
        let slopes = [0.02, -0.01, 0.03, 0.0, -0.02, 0.01, 0.01, -0.03];
        let router = cpu(&policy).decoder.router.unwrap();
        let of_shares = (router.scores == Scores::Softmax).then(|| &slopes[..router.experts]);
        for slopes in [None].into_iter().chain(of_shares.map(Some)) {
            let beside = Beside { balance_slopes: slopes, ..Beside::default() };
            let (gradient, _) = cpu(&policy).taught(&micros, TEMPERATURE, &loss, beside);
            let expected = cpu(&policy).take_choices();
            let mut first: Option<Vec<f32>> = None;
            for recompute in [false, true] {
                cpu_mut(&mut policy).decoder.recompute = recompute;
                let Some(model) = model(&policy) else { return };
                let (got, choices) = gradients(&model, &micros, slopes);
                // What an adapter adds is rounded by itself, and once more in the sum.
                let whole = if cpu(&policy).parameters().adapter().is_some() { 0.03 } else { 0.02 };
                let what_of = format!("{what}, {slopes:?}");
                assert_gradients_near(&what_of, &policy, &got, &gradient, [0.06, whole]);
                let rows = |choices: &Choices| choices.layers.iter().map(|load| load.rows.clone()).collect::<Vec<_>>();
                assert_eq!(rows(&choices), rows(&expected), "{what}: choices that are counted");
                assert_eq!((choices.known, choices.differing), (expected.known, 0), "{what}");
                assert_eq!(*first.get_or_insert(got.clone()), got, "{what}: layers computed again have other bits");
            }
            cpu_mut(&mut policy).decoder.recompute = false;
        }
    }
}

#[test]
fn a_sampler_on_a_device_records_experts_which_its_trainer_takes_too() {
    for (what, policy) in policies() {
        let Some(model) = model(&policy) else { return };
        let prompts = prompts(4);
        let engine = |capacity| Engine { model: Model::Device(&model), ..Engine::of(&policy, capacity) };
        let completions = generate_by(&engine(3), &prompts, &sampling(10));
        let other = generate_by(&engine(5), &prompts, &sampling(10));
        let tokens = |completions: &[Completion]| completions.iter().map(|c| c.tokens.clone()).collect::<Vec<_>>();
        assert_eq!(tokens(&other), tokens(&completions), "{what}: capacity shows");
        let samples = train_samples(&prompts, &completions);
        for sample in &samples {
            let routed = sample.routed.as_ref().unwrap();
            assert_eq!(routed.len(), sample.tokens.len() - 1, "{what}");
            assert_eq!(Some(routed.shape()), cpu(&policy).decoder.routed);
        }
        let (own, again) = (micros(&samples, 60), replayed(&samples));
        let (_, choices) = gradients(&model, &own, None);
        // Packed rows are other products than those of a token at a time: a choice that is nearly even may differ.
        assert!(choices.differing * 20 <= choices.known, "{what}: {} of {}", choices.differing, choices.known);
        let (_, choices) = gradients(&model, &again, None);
        assert!(choices.differing == 0 && choices.known > 0, "{what}");
        for (micro, sampled) in again.iter().zip(&own) {
            let now = model.logprobs(None, micro, TEMPERATURE).unwrap().logprobs;
            let on_cpu = &cpu(&policy).logprobs(None, std::slice::from_ref(micro), TEMPERATURE)[0].logprobs;
            assert!(distance(&now, on_cpu) < 0.02, "{what}: log-probabilities");
            let expected: Vec<f32> = sampled.rollout_logprobs.clone();
            assert_eq!(now.len(), expected.len());
        }
    }
}

#[test]
fn what_an_auxiliary_loss_is_made_of_agrees_with_the_cpu() {
    for architecture in &MIXTURES[..4] {
        let policy = mixture(architecture);
        let Some(model) = model(&policy) else { return };
        for micro in replayed(&sampled(&policy)) {
            let (got, expected) =
                (model.load_balance(&micro).unwrap(), cpu(&policy).load_balance(std::slice::from_ref(&micro)));
            assert_eq!((&got.choices, got.rows), (&expected.choices, expected.rows), "{architecture}");
            assert!((got.loss() - expected.loss()).abs() < 0.01 * expected.loss(), "{architecture}");
        }
    }
}

/// Where the biases of a choice are among all weights.
fn bias(policy: &Policy) -> std::ops::Range<usize> {
    let mut entries = cpu(policy).parameters().trained_entries().iter();
    entries.find(|entry| entry.is_choice_bias()).unwrap().range.clone()
}

/// DeepSeek-V3 in miniature with biases of its choice as its files have them: large, and apart by less than bf16 tells.
fn biased() -> Policy {
    let (mut policy, mut random) = (mixture(MIXTURES[4]), Counted::new(&[0xb1a5]));
    let place = bias(&policy);
    cpu_mut(&mut policy).trainable().values[place].fill_with(|| 11.0 + 0.02 * random.normal() as f32);
    policy
}

#[test]
fn biases_that_bf16_cannot_hold_choose_on_a_device_what_they_choose_on_a_cpu() {
    for (what, policy) in [("all weights", biased()), ("an adapter", adapted_of(biased(), 4, &["o_proj"]))] {
        let Some(model) = model(&policy) else { return };
        let (_, choices) = gradients(&model, &micros(&sampled(&policy), 60), None);
        assert!(choices.known > 100 && choices.differing * 20 <= choices.known, "{what}: {choices:?}");
    }
}

#[test]
fn a_reference_keeps_the_biases_of_choices_and_gives_a_checkpoint_all_their_bits() {
    let policy = biased();
    let Some(model) = model(&policy) else { return };
    let micro = &micros(&sampled(&policy), 60)[0];
    let logprobs =
        |reference: Option<&DeviceReference>| model.logprobs(reference, micro, TEMPERATURE).unwrap().logprobs;
    let (reference, start) = (DeviceReference::of(&model).unwrap(), logprobs(None));
    assert_eq!(logprobs(Some(&reference)), start, "the policy is its own reference before it has moved");
    let tensor = reference.values().unwrap();
    assert_eq!(tensor.count(), cpu(&policy).parameters().trained_values().len() + 2 * bias(&policy).len());

    let (_, choices) = gradients(&model, std::slice::from_ref(micro), None);
    model.balance(&choices.layers, 0.5).unwrap();
    assert_ne!(logprobs(None), start, "other experts are chosen");
    assert_eq!(logprobs(Some(&reference)), start, "not by the reference");
    // A checkpoint reads and writes in pieces, whose ends are anywhere.
    let mut other = DeviceReference::of(&model).unwrap();
    for first in (0..tensor.count()).step_by(999) {
        let piece = tensor.read(first..(first + 999).min(tensor.count())).unwrap();
        other.values_mut().unwrap().write(first, &piece).unwrap();
    }
    assert_eq!(logprobs(Some(&other)), start, "what a checkpoint gives back");
}

#[test]
fn biases_move_toward_even_loads_on_a_device_as_they_do_on_a_cpu() {
    let mut policy = biased();
    let Some(model) = model(&policy) else { return };
    let (_, choices) = gradients(&model, &replayed(&sampled(&policy)), None);
    model.balance(&choices.layers, 1e-3).unwrap();
    cpu_mut(&mut policy).balance(&choices.layers, 1e-3).unwrap();
    assert_eq!(model.trainable.download().unwrap(), cpu(&policy).parameters().trained_values(), "to the bit");
    for (policy, words) in
        [(mixture(MIXTURES[1]), "this model has none"), (adapted_of(biased(), 4, &["o_proj"]), "an adapter leaves")]
    {
        let complaint = self::model(&policy).unwrap().balance(&choices.layers, 1e-3).unwrap_err().to_string();
        assert!(complaint.contains(words), "{complaint}");
    }
}
