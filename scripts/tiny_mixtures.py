"""Makes tiny random models with experts or delta nets whose tokenizer a GGUF file can hold, to compare what llama.cpp
makes of their export (llama_cpp.py) with what Reckon computes.

    pip install torch transformers
    python scripts/tiny_mixtures.py FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM, DeepseekV2Config, DeepseekV3Config, OlmoeConfig, PreTrainedTokenizerFast, Qwen2MoeConfig,
    Qwen3_5TextConfig, Qwen3MoeConfig,
)
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SIZES = dict(
    vocab_size=288, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=False,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, rms_norm_eps=1e-6,
)
LATENT = dict(
    num_key_value_heads=4, kv_lora_rank=64, qk_nope_head_dim=64, qk_rope_head_dim=32, v_head_dim=64,
    moe_intermediate_size=256, first_k_dense_replace=1, n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=1,
    routed_scaling_factor=1.5,
    rope_parameters={
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "mscale": 0.707, "mscale_all_dim": 0.707,
        "original_max_position_embeddings": 256, "beta_fast": 32.0, "beta_slow": 1.0},
)
MODELS = {
    "qwen2-moe": (Qwen2MoeConfig, dict(
        num_experts=8, num_experts_per_tok=2, moe_intermediate_size=256, shared_expert_intermediate_size=512,
        norm_topk_prob=False)),
    "qwen3-moe": (Qwen3MoeConfig, dict(
        head_dim=64, num_experts=12, num_experts_per_tok=3, moe_intermediate_size=256, norm_topk_prob=True)),
    "olmoe": (OlmoeConfig, dict(
        num_key_value_heads=4, num_experts=6, num_experts_per_tok=2, norm_topk_prob=False)),
    "deepseek-v2": (DeepseekV2Config, dict(LATENT, q_lora_rank=96, topk_method="greedy", n_group=1, topk_group=1)),
    # llama.cpp takes queries for not compressed where there are so many layers.
    "deepseek-v2-lite": (DeepseekV2Config, dict(
        LATENT, q_lora_rank=None, topk_method="greedy", n_group=1, topk_group=1, num_hidden_layers=27, hidden_size=64,
        intermediate_size=128, moe_intermediate_size=32)),
    "deepseek-v3": (DeepseekV3Config, dict(
        LATENT, q_lora_rank=96, n_group=4, topk_group=2, norm_topk_prob=True, num_mtp_layers=0)),
    "qwen3-5": (Qwen3_5TextConfig, dict(
        head_dim=64, num_hidden_layers=4, linear_num_key_heads=4, linear_num_value_heads=4, linear_key_head_dim=64,
        linear_value_head_dim=64,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25})),
}


def save_tokenizer(folder):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: place for place, letter in enumerate(letters)}
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "t"), ("Ġt", "he")]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    split = pre_tokenizers.Split(Regex(WORDS), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_end|>"])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>").save_pretrained(folder)


def main():
    to = Path(sys.argv[1])
    for seed, (name, (kind, more)) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        config = kind(**SIZES | more, eos_token_id=263, bos_token_id=None, pad_token_id=None)
        model = AutoModelForCausalLM.from_config(config).float()
        with torch.no_grad():
            for weight in model.parameters():  # Far from their start, so that no choice is a matter of rounding.
                weight += 0.05 * torch.randn_like(weight)
            for of, bias in model.named_buffers():
                if of.endswith("e_score_correction_bias"):
                    bias += 0.1 * torch.randn_like(bias)
        model.save_pretrained(to / name)
        save_tokenizer(to / name)
        print(name, sum(w.numel() for w in model.parameters()))


if __name__ == "__main__":
    main()
