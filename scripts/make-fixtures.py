"""Makes tests/fixtures again with transformers and peft, the implementations that Reckon is compared with.

    pip install torch transformers peft
    python scripts/make-fixtures.py

Tiny random models of the three families with their logits, greedy tokens and gradients; adapters on them with theirs.
Conversations are left to scripts/chat_fixtures.py.
"""

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from letters import save_tokenizer
from transformers import LlamaConfig, Qwen2Config, Qwen3Config, AutoModelForCausalLM

FIXTURES = Path(__file__).parent.parent / "tests" / "fixtures"
VOCAB, GREEDY = 48, 256
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
MODELS = {
    "llama": (LlamaConfig, dict(tie_word_embeddings=False, rope_parameters=LLAMA3, head_dim=16), "20KB"),
    "llama-tied": (LlamaConfig, dict(tie_word_embeddings=True, rope_parameters=PLAIN), "1GB"),
    "qwen2": (Qwen2Config, dict(tie_word_embeddings=True, rope_parameters=PLAIN), "1GB"),
    "qwen3": (Qwen3Config, dict(tie_word_embeddings=False, rope_parameters=PLAIN, head_dim=16), "1GB"),
}


# Adapters by model: all linear layers; some of those that share a product, with another scale.
ADAPTERS = {
    "llama": dict(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]),
    "qwen2": dict(r=3, lora_alpha=5, target_modules=["k_proj", "up_proj", "layers.1.mlp.down_proj"], use_rslora=True),
    "qwen3": dict(r=2, lora_alpha=8, target_modules="all-linear"),
}
SEQUENCES = [[(7 * i * i + 3 * i + 1) % VOCAB for i in range(n)] for n in (19, 11)]


def make_model(name, seed):
    kind, extra, shard_size = MODELS[name]
    config = kind(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=640, eos_token_id=[VOCAB - 1, VOCAB - 2], bos_token_id=None,
        **extra,
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for weight in model.parameters():  # Biases and norms too: none may hide behind zero or one.
            weight += 0.15 * torch.randn_like(weight)
    folder = FIXTURES / "models" / name
    model.save_pretrained(folder, max_shard_size=shard_size)
    save_tokenizer(folder, VOCAB)
    expected(model, folder)


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
    return {"gradient." + n: w.grad.contiguous() for n, w in learnt} | {"logits": logits.detach().contiguous()}


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
    for seed, name in enumerate(MODELS):
        make_model(name, seed)
    for seed, name in enumerate(ADAPTERS):
        make_adapter(name, seed)


if __name__ == "__main__":
    main()
