//! Whole models with latent attention on a device, its kernels run on this machine's processor, against the CPU's decoder
//! in fp32: the same checks as of other families.

use reckon::model::DeviceModel;
use reckon::optim::MomentKind;
use reckon::plan::Lora;
use reckon::policy::Policy;
use serde_json::{Value, json};

use super::device_lora::{adapted_of, check_adapter};
use super::device_model::{check_model, rounded_of};
use super::device_sampling::{check_capacity, check_rollouts};
use super::host_device::device;
use super::models::{cpu, tiny_of};
use super::plan::{check_held, job};

/// Queries that are compressed or not, neighbours that turn or halves.
const KINDS: [&str; 3] = ["DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "DeepseekV3ForCausalLM of halves"];

/// A tiny model of multiples of eight, dense layers alone, whose weights bf16 holds exactly.
fn latent(kind: &str, tied: bool) -> Policy {
    latent_with(kind, tied, json!({}))
}

/// The same with what a test sets of its config.
pub(super) fn latent_with(kind: &str, tied: bool, other: Value) -> Policy {
    let mut config = json!({
        "kv_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 32, "first_k_dense_replace": 2,
        "rope_interleave": !kind.contains("halves"), "q_lora_rank": if kind.contains("V3") { Some(40) } else { None },
    });
    config.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
    rounded_of(tiny_of(kind.split(' ').next().unwrap(), tied, 32, &config))
}

#[test]
fn loss_and_gradients_of_a_model_with_latents_agree_with_the_cpu() {
    for (kind, tied, recompute) in [(0, true, true), (1, false, false), (2, true, true), (1, true, false)] {
        check_model(KINDS[kind], &mut latent(KINDS[kind], tied), recompute);
    }
}

#[test]
fn an_adapter_of_a_model_with_latents_computes_and_learns_on_a_device_what_it_does_on_the_cpu() {
    for (kind, rank, targets, recompute) in [
        (0, 4, &["*_proj*"][..], true),
        (1, 3, &["*_proj*"], false),
        (1, 5, &["kv_b_proj", "down_proj"], true),
        (2, 4, &["q_a_proj", "kv_a_proj_with_mqa"], false),
    ] {
        let what = format!("{}, rank {rank}, {targets:?}", KINDS[kind]);
        check_adapter(&what, &mut adapted_of(latent(KINDS[kind], true), rank, targets), recompute);
    }
}

#[test]
fn log_probabilities_of_a_rollout_over_latents_are_those_of_the_trainer_there_and_on_a_cpu() {
    let adapted = ("an adapter", adapted_of(latent(KINDS[0], true), 4, &["*_proj*"]));
    let policies = KINDS.map(|kind| (kind, latent(kind, true)));
    policies.into_iter().chain([adapted]).for_each(|(what, policy)| check_rollouts(what, &policy));
    check_capacity(&latent(KINDS[1], true));
}

#[test]
fn the_plan_of_a_model_with_latents_for_a_card_is_what_a_device_holds_within_a_twentieth() {
    for (kind, recompute) in [(0, false), (1, true), (1, false)] {
        let Some(device) = device(0) else { return };
        let mut policy = latent(KINDS[kind], true);
        super::models::cpu_mut(&mut policy).decoder.recompute = recompute;
        let what = format!("{}, recompute {recompute}", KINDS[kind]);
        check_held(&what, &device, &policy, &job(recompute, None, MomentKind::EightBit));
    }
    let Some(device) = device(0) else { return };
    let policy = adapted_of(latent(KINDS[1], true), 8, &["*_proj*"]);
    let lora = Lora::of(&cpu(&policy).parameters().adapter().unwrap().layout, 0);
    check_held("an adapter", &device, &policy, &job(false, Some(lora), MomentKind::Full));
}

#[test]
fn sizes_of_latents_without_kernels_are_refused_by_their_key() {
    let Some(device) = device(0) else { return };
    for (key, size) in [
        ("kv_lora_rank", 20),
        ("qk_rope_head_dim", 6),
        ("qk_nope_head_dim", 12),
        ("v_head_dim", 10),
        ("q_lora_rank", 30),
        ("intermediate_size", 50),
        ("moe_intermediate_size", 20),
        ("n_routed_experts", 6),
    ] {
        let mut set = json!({ "n_routed_experts": 8, "n_group": 2, "first_k_dense_replace": 1 });
        set[key] = json!(size);
        let policy = latent_with(KINDS[1], true, set);
        let refused = DeviceModel::new(device.clone(), &cpu(&policy).decoder, cpu(&policy).parameters());
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(&format!("{key} = {size}")) && error.contains("a multiple of 8"), "{error}");
    }
}
