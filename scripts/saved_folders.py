"""Loads in transformers and peft what Reckon saved after training, and compares what the two say of the same tokens.

    pip install torch transformers peft
    cargo build --release
    python scripts/saved_folders.py [target/release/reckon]

For each tiny model of tests/fixtures/models: two steps of training, `reckon export`, samples with their log-probabilities by
Reckon, the same log-probabilities by transformers. A folder in fp32 must agree within 1e-4; one in bf16 is loaded by both. The same with an adapter, which peft
puts on the fixture, and with the adapter merged by `reckon export`.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

ROOT = Path(__file__).resolve().parent.parent
RECKON = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target" / "release" / "reckon").resolve()
MODELS = ["llama", "llama-tied", "qwen2", "qwen3"]
# An adapter on experts has other names in peft, which sees them fused, and is not checked.
MIXTURES = ["qwen2-moe", "qwen3-moe", "olmoe", "deepseek-v2", "deepseek-v3"]
DELTAS = ["qwen3-5"]
PROMPTS = ["0123456789", "ABCABCABC", "=7;"]
LIMIT = 1e-4

# Rewards by coin flip: the weights are to move, not to learn.
CONFIG = """
steps = 2
control = "coin_flip"
model = { path = "MODEL" }
data = { dataset = "file", path = "rows.jsonl", held_out = 0.3 }
rollout = { prompts_per_step = 4, group_size = 4, max_new_tokens = 16 }
rubric = { verifiers = [{ kind = "exact" }] }
optim = { lr = 1e-2 }
audit = { rows = 0 }
eval = { problems = 0 }
"""
LORA = "lora = { rank = 4, alpha = 8, targets = ['*_proj'] }\n"


def reckon(*arguments, folder):
    done = subprocess.run([RECKON, *map(str, arguments)], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"reckon {' '.join(map(str, arguments))}: {done.stderr}")
    return done.stdout


def fixture(name):
    return ROOT / "tests" / "fixtures" / "models" / name


def train(name, folder, more=""):
    """A run of two steps on a fixture; returns its folder."""
    rows = [{"question": f"{n}=", "answer": str(n)} for n in range(10)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "config.toml").write_text(CONFIG.replace("MODEL", str(fixture(name))) + more)
    reckon("train", "config.toml", "--out", "run", folder=folder)
    return folder / "run"


def samples(model, folder):
    """Completions by Reckon: a prompt, tokens, and the log-probability of each."""
    lines = reckon("sample", *PROMPTS, "--model", model, "--samples", 4, "--max-new-tokens", 100, "--json", folder=folder)
    return [json.loads(line) for line in lines.splitlines()]


@torch.no_grad()
def largest_difference(model, tokenizer, samples):
    """Between Reckon's log-probabilities of the sampled tokens and the model's."""
    largest = 0.0
    for sample in samples:
        prompt, tokens = tokenizer(sample["prompt"]).input_ids, sample["tokens"]
        logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1].float()
        logprobs = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]
        largest = max(largest, (logprobs - torch.tensor(sample["logprobs"])).abs().max().item())
    return largest


def moved(model, name):
    """How far training took the weights."""
    before = AutoModelForCausalLM.from_pretrained(fixture(name))
    pairs = zip(model.parameters(), before.parameters(), strict=True)
    return max((a.float() - b.float()).abs().max().item() for a, b in pairs)


def check(name, dtype):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        run = train(name, folder)
        reckon("export", run, "--out", folder / "out", "--dtype", dtype, folder=folder)
        # bf16 weights are computed with in fp32, as Reckon does on a CPU.
        model, info = AutoModelForCausalLM.from_pretrained(folder / "out", dtype=torch.float32, output_loading_info=True)
        unmatched = {key: value for key, value in info.items() if value}
        tokenizer = AutoTokenizer.from_pretrained(folder / "out")
        taken = samples(folder / "out", folder)
        difference, way = largest_difference(model.eval(), tokenizer, taken), moved(model, name)
        good = difference <= LIMIT and way > 1e-3 and not unmatched
        tokens = sum(len(sample["tokens"]) for sample in taken)
        print(f"{name:<11} {dtype:<5} {tokens} tokens, largest difference {difference:.1e}, weights moved by {way:.3f}"
              f"{'' if good else f'  FAILED {unmatched}'}")
        return good


def check_adapter(name):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        run, adapter, merged = train(name, folder, LORA), folder / "adapter", folder / "merged"
        reckon("export", run, "--out", adapter, "--adapter", folder=folder)
        reckon("export", run, "--out", merged, folder=folder)
        taken, tokenizer = samples(adapter, folder), AutoTokenizer.from_pretrained(fixture(name))
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(fixture(name)), adapter).eval()
        by_peft = largest_difference(model, tokenizer, taken)
        with model.disable_adapter():
            off = largest_difference(model, tokenizer, taken)
        by_merged = largest_difference(AutoModelForCausalLM.from_pretrained(merged).eval(), tokenizer, taken)
        good = max(by_peft, by_merged) <= LIMIT < off
        print(f"{name:<11} adapter, largest difference in peft {by_peft:.1e}, merged {by_merged:.1e}, "
              f"with the adapter off {off:.1e}{'' if good else '  FAILED'}")
        return good


if __name__ == "__main__":
    logging.disable_progress_bar()
    results = [check(name, dtype) for name in MODELS + MIXTURES + DELTAS for dtype in ("f32", "bf16")]
    results += [check_adapter(name) for name in MODELS]
    sys.exit(0 if all(results) else 1)
