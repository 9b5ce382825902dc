//! Models with experts in GGUF files: all experts of a layer are one tensor there.

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Content;
use reckon::model::files::gguf::Mix;
use reckon::model::{ModelFolder, Parameters};
use serde_json::{Value, json};
use std::io::Cursor;

use super::exported::{expectations, values};
use super::{ROWS, Size, put, shaped, written};
use crate::program::{fails, text};

/// Families that are written, and what their configs say beside what all have.
fn families() -> [(&'static str, Value); 5] {
    [
        (
            "Qwen2MoeForCausalLM",
            json!({"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "norm_topk_prob": false,
                "shared_expert_intermediate_size": 96}),
        ),
        (
            "Qwen3MoeForCausalLM",
            json!({"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "norm_topk_prob": true}),
        ),
        ("OlmoeForCausalLM", json!({"num_experts": 8, "num_experts_per_tok": 3, "num_key_value_heads": 2})),
        ("DeepseekV2ForCausalLM", deepseek(&json!({"q_lora_rank": 64, "topk_method": "greedy"}))),
        ("DeepseekV3ForCausalLM", deepseek(&json!({"q_lora_rank": 64, "n_group": 3, "topk_group": 2}))),
    ]
}

/// What both of DeepSeek's have: one dense layer, an expert for all tokens, and yarn.
fn deepseek(more: &Value) -> Value {
    let mut config = json!({
        "num_key_value_heads": 2, "head_dim": null, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 8,
        "v_head_dim": 64, "n_routed_experts": 6, "num_experts_per_tok": 2, "n_shared_experts": 1, "rms_norm_eps": 1e-6,
        "moe_intermediate_size": 64, "first_k_dense_replace": 1, "routed_scaling_factor": 1.5, "norm_topk_prob": true,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "mscale": 0.7, "mscale_all_dim": 0.7,
            "original_max_position_embeddings": 32},
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn mixture(architecture: &str, more: &Value, width: usize) -> ModelFolder<Parameters> {
    shaped(architecture, Size { width, inner: 128, head: width / 2, tied: false }, more)
}

#[test]
fn an_exact_file_gives_back_every_bit_and_the_same_shape() {
    // Queries that are not compressed, as in the models of so many layers that llama.cpp knows.
    let lite = deepseek(&json!({"q_lora_rank": null, "topk_method": "greedy", "num_hidden_layers": 26}));
    for (architecture, more) in families().into_iter().chain([("DeepseekV2ForCausalLM", lite)]) {
        let (folder, model) = (tempfile::tempdir().unwrap(), mixture(architecture, &more, 32));
        let bytes = written(&model, Mix::F32);
        let read = ModelFolder::read_frozen(&put(folder.path(), &bytes)).unwrap().into_parameters();
        assert_eq!(values(&read), values(&model), "{architecture}");
        assert_eq!(read.config.experts().unwrap(), model.config.experts().unwrap(), "{architecture}");
        assert_eq!(read.config.family().unwrap(), model.config.family().unwrap());
        model.compare_with(&read).unwrap();
        // A file of a file is the same.
        assert_eq!(written(&read, Mix::F32), bytes, "{architecture}");
        let content = Content::read(&mut Cursor::new(&bytes)).unwrap();
        let count = model.config.experts().unwrap().unwrap().router.experts;
        assert_eq!(
            content.tensor_infos.contains_key("blk.0.attn_k_b.weight"),
            model.config.latent().unwrap().is_some(),
            "{architecture}"
        );
        assert_eq!(read.config.latent().unwrap(), model.config.latent().unwrap(), "{architecture}");
        let frequencies = |model: &ModelFolder<Parameters>| model.config.rope_frequencies().unwrap();
        assert_eq!(frequencies(&read), frequencies(&model), "{architecture}");
        assert_eq!(read.config.rope_factors().unwrap(), model.config.rope_factors().unwrap(), "{architecture}");
        let shape = content.tensor_infos["blk.1.ffn_down_exps.weight"].shape.dims().to_vec();
        assert_eq!((shape[0], shape[1]), (count, 32), "{architecture}: experts, outputs, inputs");
    }
}

#[test]
fn fewer_bits_stay_near_and_routers_stay_exact() {
    let tokens: Vec<u32> = (0..60).map(|i| (i * i * 7 + 3) % ROWS as u32).collect();
    for (architecture, more) in families() {
        let model = mixture(architecture, &more, 256);
        let exact = expectations(&model, &tokens);
        for (mix, kl) in [(Mix::F32, 0.0), (Mix::Q8_0, 1e-2), (Mix::Q4KM, 0.5)] {
            let (folder, bytes) = (tempfile::tempdir().unwrap(), written(&model, mix));
            let read = ModelFolder::read_frozen(&put(folder.path(), &bytes)).unwrap().into_parameters();
            let near = exact.compare(&expectations(&read, &tokens));
            assert!(near.kl <= kl && near.kl >= 0.0, "{architecture} {mix:?}: {near:?}");
            let content = Content::read(&mut Cursor::new(&bytes)).unwrap();
            for (name, info) in &content.tensor_infos {
                if name.contains("ffn_gate_inp") {
                    assert_eq!(info.ggml_dtype, GgmlDType::F32, "{name}");
                }
            }
        }
    }
}

#[test]
fn what_llama_cpp_would_compute_otherwise_is_refused_in_a_line() {
    let [(qwen2, two), (qwen3, three), (olmoe, eight), (second, latent), (third, biased)] = families();
    for (architecture, more, changed, expected) in [
        (qwen2, &two, json!({"mlp_only_layers": [0]}), "1 layers have no experts"),
        (qwen2, &two, json!({"norm_topk_prob": true}), "norm_topk_prob = true"),
        (qwen3, &three, json!({"norm_topk_prob": false}), "norm_topk_prob = false"),
        (olmoe, &eight, json!({"num_key_value_heads": 1}), "2 heads share 1"),
        (olmoe, &eight, json!({"tie_word_embeddings": true}), "the output matrix is the embedding"),
        (qwen2, &two, json!({"head_dim": 32}), "heads are 64 wide together"),
        (second, &latent, json!({"n_group": 3, "topk_group": 2, "topk_method": "group_limited_greedy"}), "greedy"),
        (second, &latent, json!({"q_lora_rank": null}), "q_lora_rank = null"),
        (third, &biased, json!({"rms_norm_eps": 1e-5}), "rms_norm_eps = 0.00001"),
        (third, &biased, json!({"rope_interleave": false}), "rope_interleave = false"),
        (third, &biased, json!({"n_shared_experts": 0}), "n_shared_experts = 0"),
        (
            third,
            &biased,
            json!({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}}),
            "mscale_all_dim differ",
        ),
    ] {
        let mut more = more.clone();
        more.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
        let folder = tempfile::tempdir().unwrap();
        mixture(architecture, &more, 32).save_merged(folder.path(), reckon::model::SaveDtype::F32).unwrap();
        let out = folder.path().join("out.gguf");
        let complaint = fails(&["export", text(folder.path()), "--gguf", "f32", "--out", text(&out)]);
        assert!(complaint.contains(expected) && complaint.trim().lines().count() == 1, "{complaint}");
        assert!(!out.exists());
    }
}
