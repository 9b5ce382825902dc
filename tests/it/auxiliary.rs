//! The auxiliary loss that makes the loads of experts even. `parity` has transformers' numbers.

use std::fs;

use reckon::batch::{Beside, MicroBatch, RouterReplay};
use reckon::policy::Policy;

use super::gradients::{check_quotients, loss, total};
use super::models::{cpu, cpu_mut, generate, micros, prompts, sampling, shared_micros, tiny};
use super::program::{fails, records, small_run, succeeds, text};
use super::ranks::succeeds_on;
use super::sampling::train_samples;

const COEF: f64 = 0.5;
const SHARES: [&str; 4] = ["Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM", "OlmoeForCausalLM", "DeepseekV2ForCausalLM"];

/// The gradients of a loss and of the auxiliary one, and the latter.
fn gradients(policy: &Policy, micros: &[MicroBatch]) -> (Vec<f32>, f64) {
    let balance = cpu(policy).load_balance(micros);
    let slopes = balance.slopes(COEF);
    let beside = Beside { balance_slopes: Some(&slopes), ..Beside::default() };
    (cpu(policy).taught(micros, 0.9, &loss, beside).0, balance.loss())
}

#[test]
fn its_gradient_agrees_with_finite_differences() {
    for architecture in SHARES {
        let (mut policy, prompts) = (tiny(architecture, true), prompts(6));
        let samples = train_samples(&prompts, &generate(&policy, &prompts, &sampling(40), 1, 5));
        let mut micros = shared_micros(&samples, 64);
        // A step that changes a choice is no slope, so that all go to the experts that they went to.
        micros.iter_mut().for_each(|micro| micro.router_replay = RouterReplay::Rollout);
        let (gradient, _) = gradients(&policy, &micros);
        let all = |policy: &Policy| total(policy, &micros) + COEF * cpu(policy).load_balance(&micros).loss();
        check_quotients(&mut policy, &gradient, all, architecture);
    }
}

#[test]
fn neither_the_cut_nor_threads_nor_shared_prompts_change_it() {
    for architecture in SHARES {
        let (mut policy, prompts) = (tiny(architecture, true), prompts(6));
        let samples = train_samples(&prompts, &generate(&policy, &prompts, &sampling(40), 1, 5));
        let (expected, value) = gradients(&policy, &micros(&samples, 10_000));
        let (plain, _) = cpu(&policy).gradients(&micros(&samples, 10_000), 0.9, &loss);
        assert_ne!(plain, expected, "{architecture}: it shows");
        let norm = expected.iter().map(|g| g * g).sum::<f32>().sqrt();
        for (shared, max_tokens, threads, recompute) in
            [(true, 10_000, 1, false), (true, 60, 1, false), (false, 1, 2, false), (true, 60, 3, true)]
        {
            cpu_mut(&mut policy).threads = threads;
            cpu_mut(&mut policy).decoder.recompute = recompute;
            let cut = if shared { shared_micros(&samples, max_tokens) } else { micros(&samples, max_tokens) };
            let (gradient, again) = gradients(&policy, &cut);
            assert_eq!(again, value, "{architecture}: whole numbers");
            let difference = expected.iter().zip(&gradient).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
            assert!(difference < 2e-6 * norm, "{architecture}: {difference} of {norm} with {max_tokens} tokens");
        }
    }
}

/// A config of `reckon train` on a model of shares that was just made.
pub(crate) fn run_of(folder: &std::path::Path, coef: &str) -> std::path::PathBuf {
    let shape = folder.join("shape.json");
    let config = r#"{"architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "num_experts": 4,
        "num_experts_per_tok": 2, "vocab_size": 224, "eos_token_id": 0, "moe_intermediate_size": 24, "norm_topk_prob": true, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 512, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "output_router_logits": true, "router_aux_loss_coef": 0.25}"#;
    fs::write(&shape, config).unwrap();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/");
    let base = fs::read_to_string(format!("{root}moe-countdown/base.toml")).unwrap();
    let base = base.replace("examples/moe-countdown/shape.json", text(&shape)).replace("examples/", root);
    fs::write(folder.join("base.toml"), base.replace("tokens_per_step = 4096", "tokens_per_step = 512")).unwrap();
    let (made, sets) = (folder.join("base"), ["--set", "steps=4", "--set", "compute.device=cpu"]);
    let balance = ["--set", "optim.balance=0", "--out", text(&made)];
    succeeds(&[&["sft", text(&folder.join("base.toml"))][..], &sets, &balance].concat());
    let config = small_run(folder, 2, &format!("control = 'coin_flip'\noptim = {{lr = 1e-3{coef}}}"));
    let edited = fs::read_to_string(&config).unwrap().replace("builtin:countdown", text(&made));
    fs::write(&config, edited).unwrap();
    config
}

#[test]
fn a_run_has_the_weight_of_its_model_s_file_unless_it_is_written_and_ranks_share_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = run_of(folder.path(), "");
    let run = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        succeeds(&[&["train", text(&config), "--out", text(&out)][..], more].concat());
        records(&out)
    };
    let own = run("own", &[]);
    for record in &own[1..] {
        let loss = record.get("router/aux_loss").unwrap();
        assert!((1.5..4.0).contains(&loss), "2 where loads are even: {loss}");
    }
    assert_eq!(run("written", &["--set", "optim.router_aux_loss_coef=0.25"]), own);
    let none = run("none", &["--set", "optim.router_aux_loss_coef=0"]);
    assert_eq!(none[1].get("router/aux_loss"), None);
    assert_ne!(none[1].get("optim/grad_norm"), own[1].get("optim/grad_norm"));
    let ranks = folder.path().join("ranks");
    succeeds_on(2, &["train", text(&config), "--out", text(&ranks)]);
    assert_eq!(records(&ranks), own);
}

#[test]
fn a_model_that_it_is_not_for_is_refused_in_a_line() {
    let mut policies = [tiny("Qwen3ForCausalLM", true), tiny("DeepseekV3ForCausalLM", true)];
    for policy in &mut policies {
        assert_eq!(policy.aux_loss_coef(None).unwrap(), 0.0);
        assert_eq!(policy.aux_loss_coef(Some(0.0)).unwrap(), 0.0);
        let complaint = policy.aux_loss_coef(Some(0.01)).unwrap_err().to_string();
        assert!(complaint.contains("0.01") && complaint.contains("optim.balance"), "{complaint}");
    }
    let folder = tempfile::tempdir().unwrap();
    let config = small_run(folder.path(), 1, "optim = {router_aux_loss_coef = -1.0}");
    let complaint = fails(&["train", text(&config), "--out", text(&folder.path().join("run"))]);
    assert!(complaint.contains("at least 0") && complaint.trim().lines().count() == 1, "{complaint}");
}
