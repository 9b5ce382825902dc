//! Names of tensors in GGUF files beside those of Hugging Face, and the order of rows that llama's have there.

use super::latent;
use crate::model::config::{Family, ModelConfig};

/// Parts of a layer: behind `blk.N.` in GGUF, and behind `model.layers.N.`.
const PARTS: [(&str, &str); 39] = [
    ("attn_norm.weight", "input_layernorm.weight"),
    ("attn_q.weight", "self_attn.q_proj.weight"),
    ("attn_k.weight", "self_attn.k_proj.weight"),
    ("attn_v.weight", "self_attn.v_proj.weight"),
    ("attn_q.bias", "self_attn.q_proj.bias"),
    ("attn_k.bias", "self_attn.k_proj.bias"),
    ("attn_v.bias", "self_attn.v_proj.bias"),
    ("attn_q_norm.weight", "self_attn.q_norm.weight"),
    ("attn_k_norm.weight", "self_attn.k_norm.weight"),
    ("attn_output.weight", "self_attn.o_proj.weight"),
    (FIRST_NORM, "post_attention_layernorm.weight"),
    ("ffn_gate.weight", "mlp.gate_proj.weight"),
    ("ffn_up.weight", "mlp.up_proj.weight"),
    ("ffn_down.weight", "mlp.down_proj.weight"),
    (ROUTER, "mlp.gate.weight"),
    (SHARED_GATE, "mlp.shared_expert_gate.weight"),
    ("ffn_gate_shexp.weight", "mlp.shared_expert.gate_proj.weight"),
    ("ffn_up_shexp.weight", "mlp.shared_expert.up_proj.weight"),
    ("ffn_down_shexp.weight", "mlp.shared_expert.down_proj.weight"),
    // The same as DeepSeek's files call them.
    ("ffn_gate_shexp.weight", "mlp.shared_experts.gate_proj.weight"),
    ("ffn_up_shexp.weight", "mlp.shared_experts.up_proj.weight"),
    ("ffn_down_shexp.weight", "mlp.shared_experts.down_proj.weight"),
    ("exp_probs_b.bias", "mlp.gate.e_score_correction_bias"),
    ("attn_q_a.weight", "self_attn.q_a_proj.weight"),
    ("attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight"),
    ("attn_q_b.weight", "self_attn.q_b_proj.weight"),
    ("attn_kv_a_mqa.weight", "self_attn.kv_a_proj_with_mqa.weight"),
    ("attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight"),
    ("attn_kv_b.weight", latent::EXPAND),
    // Delta nets, and what stands beside them.
    (SECOND_NORM, "post_attention_layernorm.weight"),
    ("attn_qkv.weight", "linear_attn.in_proj_qkv.weight"),
    ("attn_gate.weight", "linear_attn.in_proj_z.weight"),
    ("ssm_beta.weight", "linear_attn.in_proj_b.weight"),
    ("ssm_alpha.weight", "linear_attn.in_proj_a.weight"),
    (TAPS, "linear_attn.conv1d.weight"),
    ("ssm_a", "linear_attn.A_log"),
    ("ssm_dt.bias", "linear_attn.dt_bias"),
    ("ssm_norm.weight", "linear_attn.norm.weight"),
    ("ssm_out.weight", "linear_attn.out_proj.weight"),
];

/// A layer's router, which stays exact.
pub(super) const ROUTER: &str = "ffn_gate_inp.weight";
/// The gate of the expert that all tokens go through.
const SHARED_GATE: &str = "ffn_gate_inp_shexp.weight";

/// The norm before a layer's feed-forward part, and what it is called where layers may be delta nets.
const FIRST_NORM: &str = "ffn_norm.weight";
const SECOND_NORM: &str = "post_attention_norm.weight";
/// The taps of a delta net's convolution, which stay exact.
pub(super) const TAPS: &str = "ssm_conv1d.weight";

/// Matrices of all experts of a layer, one behind the other: behind `blk.N.` in GGUF, and of each expert behind
/// `model.layers.N.mlp.experts.E.`.
const EXPERTS: [(&str, &str); 3] = [
    ("ffn_gate_exps.weight", "gate_proj.weight"),
    ("ffn_up_exps.weight", "up_proj.weight"),
    ("ffn_down_exps.weight", "down_proj.weight"),
];

/// What a model has once.
const WHOLE: [(&str, &str); 3] =
    [(EMBEDDING, "model.embed_tokens.weight"), ("output_norm.weight", "model.norm.weight"), (OUTPUT, "lm_head.weight")];

/// The embedding in a GGUF file.
pub(super) const EMBEDDING: &str = "token_embd.weight";
/// The output matrix in a GGUF file, where it is not the embedding.
pub(super) const OUTPUT: &str = "output.weight";
/// What each rotary frequency is divided by: how GGUF files say Llama 3's stretch.
pub(super) const FREQUENCIES: &str = "rope_freqs.weight";

/// Hugging Face's name of a tensor in a GGUF file, of a model whose attention is latent or is not; the same name where it
/// has none.
pub(super) fn to_hub(name: &str, latent: bool) -> String {
    if let Some((_, hub)) = WHOLE.iter().find(|(known, _)| *known == name) {
        return (*hub).to_owned();
    }
    let part = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let is_other = |hub: &str| if latent { hub.contains("shared_expert.") } else { hub.contains("shared_experts.") };
    let of_part = |part: &str| PARTS.iter().find(|(known, hub)| *known == part && !is_other(hub));
    let found = part.and_then(|(layer, part)| Some((layer, of_part(part)?.1)));
    found.map_or_else(|| name.to_owned(), |(layer, part)| format!("model.layers.{layer}.{part}"))
}

/// Hugging Face's names of the matrices of `count` experts that a tensor in a GGUF file holds, where it holds such.
pub(super) fn of_experts(name: &str, count: usize) -> Option<impl Iterator<Item = String>> {
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let (_, hub) = EXPERTS.iter().find(|(known, _)| *known == part)?;
    Some((0..count).map(move |expert| format!("model.layers.{layer}.mlp.experts.{expert}.{hub}")))
}

/// Whether a tensor in a GGUF file holds matrices of all experts of a layer.
pub(super) fn is_of_experts(name: &str) -> bool {
    EXPERTS.iter().any(|(part, _)| name.ends_with(part))
}

/// Whether a tensor in a GGUF file is a vector that is a row in Hugging Face's.
pub(super) fn is_row(name: &str) -> bool {
    name.ends_with(SHARED_GATE)
}

/// The name in a GGUF file of a tensor of a model by its Hugging Face name.
pub(super) fn written(name: &str, config: &ModelConfig) -> Option<String> {
    let found = of_hub(name)?;
    let is_other = config.family().is_ok_and(|family| family == Family::Qwen3_5);
    Some(match found.strip_suffix(FIRST_NORM).filter(|_| is_other) {
        Some(layer) => format!("{layer}{SECOND_NORM}"),
        None => found,
    })
}

/// The name in a GGUF file of a tensor by its Hugging Face name.
pub(super) fn of_hub(name: &str) -> Option<String> {
    if let Some((gguf, _)) = WHOLE.iter().find(|(_, hub)| *hub == name) {
        return Some((*gguf).to_owned());
    }
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let of_expert = part.strip_prefix("mlp.experts.").and_then(|rest| rest.split_once('.'));
    let found = match of_expert {
        Some((_, part)) => EXPERTS.iter().find(|(_, hub)| *hub == part),
        None => PARTS.iter().find(|(_, hub)| *hub == part),
    };
    let (gguf, _) = found?;
    Some(format!("blk.{layer}.{gguf}"))
}

/// The rows of a head of a tensor (by its Hugging Face name) whose rows stand in another order in GGUF: those of
/// llama's queries and keys. Hugging Face has the two halves of a head one behind the other, and turns row `i` with row
/// `i + D/2`; GGUF has those two side by side.
pub(super) fn turned(name: &str, config: &ModelConfig) -> Option<usize> {
    let is_llama = config.family().is_ok_and(|family| family == Family::Llama);
    let parts = ["self_attn.q_proj.weight", "self_attn.k_proj.weight"];
    (is_llama && parts.iter().any(|part| name.ends_with(part))).then(|| config.heads().size)
}

/// Where row `row` of a head of `size` rows, in Hugging Face's order, stands in GGUF's.
fn row_in_gguf(row: usize, size: usize) -> usize {
    let (half, pair) = (row / (size / 2), row % (size / 2));
    2 * pair + half
}

/// Rows of `width` values, the `rows` of each head brought from GGUF's order to Hugging Face's.
pub(super) fn in_halves<T: Copy>(values: &[T], rows: usize, width: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks(rows * width) {
        for row in 0..rows {
            out.extend_from_slice(&head[row_in_gguf(row, rows) * width..][..width]);
        }
    }
    out
}

/// The other way of [`in_halves`].
pub(super) fn in_pairs(values: &[f32], rows: usize, width: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for (from, to) in values.chunks(rows * width).zip(out.chunks_mut(rows * width)) {
        for row in 0..rows {
            to[row_in_gguf(row, rows) * width..][..width].copy_from_slice(&from[row * width..][..width]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (gguf, hub) in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight"),
            ("blk.31.ffn_norm.weight", "model.layers.31.post_attention_layernorm.weight"),
            ("output.weight", "lm_head.weight"),
            ("blk.7.ffn_gate_inp.weight", "model.layers.7.mlp.gate.weight"),
            ("blk.2.ssm_a", "model.layers.2.linear_attn.A_log"),
        ] {
            assert_eq!((to_hub(gguf, false).as_str(), of_hub(hub).as_deref()), (hub, Some(gguf)));
        }
        assert_eq!(to_hub("blk.0.ssm_in.weight", false), "blk.0.ssm_in.weight");
        let shared = "blk.0.ffn_up_shexp.weight";
        assert_eq!(to_hub(shared, false), "model.layers.0.mlp.shared_expert.up_proj.weight");
        assert_eq!(to_hub(shared, true), "model.layers.0.mlp.shared_experts.up_proj.weight");
        assert_eq!(of_hub("model.vision.weight"), None);
        let down: Vec<String> = of_experts("blk.3.ffn_down_exps.weight", 2).unwrap().collect();
        assert_eq!(down, [0, 1].map(|e| format!("model.layers.3.mlp.experts.{e}.down_proj.weight")));
        assert!(down.iter().all(|name| of_hub(name).as_deref() == Some("blk.3.ffn_down_exps.weight")));
        assert!(of_experts("blk.3.ffn_down.weight", 2).is_none());
    }

    #[test]
    fn rows_of_a_head_stand_in_pairs() {
        assert_eq!((0..6).map(|row| row_in_gguf(row, 6)).collect::<Vec<_>>(), [0, 2, 4, 1, 3, 5]);
        let values: Vec<f32> = (0..24).map(|value| value as f32).collect();
        assert_eq!(in_halves(&in_pairs(&values, 6, 2), 6, 2), values);
    }
}
