"""Makes tests/fixtures again with transformers and peft, the implementations that Reckon is compared with.

    pip install torch transformers peft
    python scripts/make-fixtures.py [NAME...]

Tiny random models of all families, or of those named, with their logits, greedy tokens and gradients; the auxiliary
losses of routers; adapters with theirs. `auxiliary` alone makes these losses for the models as they are. Conversations are left to scripts/chat_fixtures.py.
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from letters import save_tokenizer
from transformers import (
    AutoModelForCausalLM, DeepseekV2Config, DeepseekV3Config, LlamaConfig, OlmoeConfig, Qwen2Config, Qwen2MoeConfig,
    Qwen3Config, Qwen3MoeConfig, Qwen3_5Config, Qwen3_5ForConditionalGeneration, Qwen3_5TextConfig,
)

FIXTURES = Path(__file__).parent.parent / "tests" / "fixtures"
VOCAB, GREEDY = 48, 256
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "beta_fast": 4.0, "beta_slow": 1.0, "mscale": 1.0,
    "mscale_all_dim": 0.707, "original_max_position_embeddings": 32,
}
LATENT = dict(
    num_key_value_heads=4, kv_lora_rank=12, qk_nope_head_dim=10, qk_rope_head_dim=8, v_head_dim=6,
    moe_intermediate_size=12, first_k_dense_replace=1, rms_norm_eps=1e-5,
)
DELTA = dict(
    num_hidden_layers=4, head_dim=16, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8,
    linear_value_head_dim=12, rope_parameters=PLAIN | {"partial_rotary_factor": 0.5},
)
SIZES = dict(
    vocab_size=VOCAB, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=640, eos_token_id=[VOCAB - 1, VOCAB - 2], bos_token_id=None,
    pad_token_id=None,
)
MODELS = {
    "llama": (LlamaConfig, dict(tie_word_embeddings=False, rope_parameters=LLAMA3, head_dim=16), "20KB"),
    "llama-tied": (LlamaConfig, dict(tie_word_embeddings=True, rope_parameters=PLAIN), "1GB"),
    "qwen2": (Qwen2Config, dict(tie_word_embeddings=True, rope_parameters=PLAIN), "1GB"),
    "qwen3": (Qwen3Config, dict(tie_word_embeddings=False, rope_parameters=PLAIN, head_dim=16), "1GB"),
    # A dense layer, then experts and one for every token behind a gate.
    "qwen2-moe": (Qwen2MoeConfig, dict(
        rope_parameters=PLAIN, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=12,
        shared_expert_intermediate_size=20, mlp_only_layers=[0]), "1GB"),
    "qwen3-moe": (Qwen3MoeConfig, dict(
        rope_parameters=PLAIN, head_dim=16, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=12,
        norm_topk_prob=True), "1GB"),
    "olmoe": (OlmoeConfig, dict(
        rope_parameters=PLAIN, num_experts=6, num_experts_per_tok=3, intermediate_size=12), "1GB"),
    # No compression of queries, the best of two groups of experts by their best one; weights that stay unnormalised.
    "deepseek-v2": (DeepseekV2Config, dict(
        **LATENT, rope_parameters=YARN, q_lora_rank=None, n_routed_experts=6, num_experts_per_tok=2, n_group=3,
        topk_group=2, topk_method="group_limited_greedy", routed_scaling_factor=1.5, n_shared_experts=2), "1GB"),
    # Biases that move the choice, some of them so far down that all biased scores are negative.
    "deepseek-v3": (DeepseekV3Config, dict(
        **LATENT, rope_parameters=YARN, q_lora_rank=24, n_routed_experts=6, num_experts_per_tok=2, n_group=3,
        topk_group=2, routed_scaling_factor=2.5, n_shared_experts=1, num_mtp_layers=0), "1GB"),
    # Three delta nets, of which two value heads share a key, to one layer of attention.
    "qwen3-5": (Qwen3_5TextConfig, DELTA, "1GB"),
}
# A model of texts and images, and what follows the text part of it there.
WHOLE = "qwen3-5-whole"
VISION = dict(
    depth=1, hidden_size=16, intermediate_size=16, num_heads=2, patch_size=2, out_hidden_size=32,
    num_position_embeddings=4,
)


# Adapters by model: all linear layers; some of those that share a product, with another scale.
ADAPTERS = {
    "llama": dict(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]),
    "qwen2": dict(r=3, lora_alpha=5, target_modules=["k_proj", "up_proj", "layers.1.mlp.down_proj"], use_rslora=True),
    "qwen3": dict(r=2, lora_alpha=8, target_modules="all-linear"),
}
# Models whose routers have an auxiliary loss there.
AUXILIARY = ["qwen2-moe", "qwen3-moe", "olmoe"]
SEQUENCES = [[(7 * i * i + 3 * i + 1) % VOCAB for i in range(n)] for n in (19, 11)]


def make_model(name, seed):
    kind, extra, shard_size = MODELS[name]
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(kind(**SIZES | extra)).float().eval()
    move_weights(model)
    folder = FIXTURES / "models" / name
    model.save_pretrained(folder, max_shard_size=shard_size)
    save_tokenizer(folder, VOCAB)
    expected(model, folder)


def make_whole(seed):
    config = Qwen3_5Config(text_config=SIZES | DELTA, vision_config=VISION, tie_word_embeddings=True)
    torch.manual_seed(seed)
    model = Qwen3_5ForConditionalGeneration(config).float().eval()
    move_weights(model)
    folder = FIXTURES / "models" / WHOLE
    model.save_pretrained(folder)
    save_tokenizer(folder, VOCAB)
    logits = model(input_ids=torch.tensor(SEQUENCES[:1])).logits[0].detach().contiguous()
    save_file({"logits": logits}, folder / "expected.safetensors")


def move_weights(model):
    with torch.no_grad():
        for weight in model.parameters():  # Biases and norms too: none may hide behind zero or one.
            weight += 0.15 * torch.randn_like(weight)
        for name_of, bias in model.named_buffers():
            if name_of.endswith("e_score_correction_bias"):
                bias += 0.3 * torch.randn_like(bias) - 1.0


def make_adapter(name, seed):
    folder = FIXTURES / "models" / name
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(seed)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **ADAPTERS[name]))
    with torch.no_grad():
        for weight in (w for w in model.parameters() if w.requires_grad):  # A new adapter's B hides its A.
            weight += 0.15 * torch.randn_like(weight)
    to = FIXTURES / "adapters" / name
    model.save_pretrained(to)
    (to / "README.md").unlink(missing_ok=True)
    config = json.loads((to / "adapter_config.json").read_text()) | {"base_model_name_or_path": name}
    (to / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    tensors = logits_and_gradients(model.eval())
    save_file({n.replace(".default", ""): t for n, t in tensors.items()}, to / "expected.safetensors")


def logits_and_gradients(model):
    logits = model(torch.tensor(SEQUENCES[:1])).logits[0]
    targets = sum(len(s) - 1 for s in SEQUENCES)
    for s in SEQUENCES:
        s = torch.tensor([s])
        chosen = model(s).logits[0, :-1].log_softmax(-1).gather(1, s[0, 1:, None])
        (-chosen.sum() / targets).backward()
    learnt = [(n, w) for n, w in model.named_parameters() if w.requires_grad]
    gradients = {f"gradient.{n}": g.contiguous() for name, w in learnt for n, g in by_expert(name, w.grad)}
    return gradients | {"logits": logits.detach().contiguous()}


def make_auxiliary(name):
    """The loss that makes loads even, over all inputs that predict a token, and its gradients."""
    folder = FIXTURES / "models" / name
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    longest = max(len(s) for s in SEQUENCES) - 1
    tokens = torch.tensor([s[:-1] + [0] * (longest - len(s) + 1) for s in SEQUENCES])
    mask = torch.tensor([[int(i < len(s) - 1) for i in range(longest)] for s in SEQUENCES])
    loss = model(tokens, attention_mask=mask, output_router_logits=True).aux_loss
    loss.backward()
    reached = [(n, w.grad) for n, w in model.named_parameters() if w.grad is not None]
    gradients = {f"gradient.{n}": g.contiguous() for name, grad in reached for n, g in by_expert(name, grad)}
    save_file(gradients | {"loss": loss.detach().reshape(1)}, folder / "auxiliary.safetensors")


def by_expert(name, gradient):
    """The gradients of the tensors that files have: those of each expert, which are one in memory."""
    module, _, part = name.rpartition(".experts.")
    if part not in ("gate_up_proj", "down_proj"):
        return [(name, gradient)]
    if part == "down_proj":
        return [(f"{module}.experts.{e}.down_proj.weight", g) for e, g in enumerate(gradient)]
    halves = [(e, zip(("gate_proj", "up_proj"), g.chunk(2))) for e, g in enumerate(gradient)]
    return [(f"{module}.experts.{e}.{which}.weight", g) for e, parts in halves for which, g in parts]


def expected(model, folder):
    tensors = logits_and_gradients(model)
    prompt = SEQUENCES[0][:5]
    text, cache = list(prompt), None
    with torch.no_grad():
        while len(text) < len(prompt) + GREEDY:
            step = model(torch.tensor([text if cache is None else text[-1:]]), past_key_values=cache, use_cache=True)
            cache = step.past_key_values
            text.append(int(step.logits[0, -1].argmax()))
    save_file(tensors, folder / "expected.safetensors")
    tokens = {"sequences": SEQUENCES, "prompt": prompt, "greedy": text[len(prompt):]}
    (folder / "expected.json").write_text(json.dumps(tokens))


def main():
    wanted = sys.argv[1:] or [*MODELS, WHOLE, "auxiliary"]
    for seed, name in enumerate(MODELS):
        if name in wanted:
            make_model(name, seed)
    if WHOLE in wanted:
        make_whole(len(MODELS))
    if "auxiliary" in wanted:
        for name in AUXILIARY:
            make_auxiliary(name)
    for seed, name in enumerate(ADAPTERS):
        if name in wanted:
            make_adapter(name, seed)


if __name__ == "__main__":
    main()
