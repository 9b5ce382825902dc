"""Makes tests/fixtures/other again with transformers: tiny random models of families that Reckon samples from and does
not train, with their greedy tokens and the log-probability of each.

    pip install torch transformers
    python scripts/other_models.py
"""

import json
import shutil
from pathlib import Path

import torch
import transformers
from letters import save_tokenizer
from transformers import AutoModelForCausalLM

TO = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "other"
VOCAB, GREEDY = 48, 64
PROMPTS = [[(7 * i * i + 3 * i + 1) % VOCAB for i in range(n)] for n in (9, 5)]
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
COMMON = dict(
    vocab_size=VOCAB, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, bos_token_id=None, eos_token_id=VOCAB - 1, pad_token_id=None,
)
MODELS = {
    "mistral": ("MistralConfig", dict(head_dim=8, sliding_window=None, rope_parameters=PLAIN)),
    "gemma2": ("Gemma2Config", dict(head_dim=8, sliding_window=128, query_pre_attn_scalar=8, rope_parameters=PLAIN)),
    "gemma3": ("Gemma3TextConfig", dict(head_dim=8, sliding_window=64, query_pre_attn_scalar=8)),
    "phi3": ("Phi3Config", dict(rope_parameters=PLAIN)),
    "glm4": ("Glm4Config", dict(head_dim=8, rope_parameters=PLAIN | {"partial_rotary_factor": 0.5})),
    "olmo2": ("Olmo2Config", dict(rope_parameters=PLAIN)),
}


@torch.no_grad()
def greedy(model, prompt):
    tokens, logprobs = list(prompt), []
    while len(tokens) < len(prompt) + GREEDY:
        scores = model(torch.tensor([tokens])).logits[0, -1].log_softmax(-1)
        tokens.append(int(scores.argmax()))
        logprobs.append(round(float(scores[tokens[-1]]), 6))
    return {"prompt": prompt, "greedy": tokens[len(prompt):], "logprobs": logprobs}


def main():
    for seed, (name, (kind, extra)) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        config = getattr(transformers, kind)(**COMMON | extra)
        config._attn_implementation = "eager"
        model = AutoModelForCausalLM.from_config(config).float().eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.15 * torch.randn_like(weight)
        folder = TO / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        save_tokenizer(folder, VOCAB)
        expected = [greedy(model, prompt) for prompt in PROMPTS]
        (folder / "expected.json").write_text(json.dumps(expected) + "\n")
        print(name, model.num_parameters(), expected[0]["greedy"][:12])


if __name__ == "__main__":
    main()
