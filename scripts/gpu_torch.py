#!/usr/bin/env python3
"""What the machine's own PyTorch does on the jobs of `bench-device`; prints one JSON object.

Rate of a bf16 product, causal attention at Qwen3-0.6B's heads over 16k tokens, and, where transformers is there, a
training step of that shape with gradient checkpointing. `--try` takes tiny sizes on the CPU, to see that it runs.
"""

import json
import signal
import sys
import time

try:
    import torch
except ModuleNotFoundError:
    sys.exit("there is no PyTorch on this machine to compare with")
import torch.nn.functional as F

TRY = "--try" in sys.argv
DEVICE = "cpu" if TRY else "cuda"
TOKENS, SIDE = (64, 64) if TRY else (16384, 8192)
SHAPE = dict(vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=2) if TRY else dict(
    vocab_size=151936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28)


def wait():
    if not TRY:
        torch.cuda.synchronize()


def seconds(work, runs=5):
    """The median of several runs after one that is not timed."""
    work()
    times = []
    for _ in range(runs):
        wait()
        start = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - start)
    return sorted(times)[runs // 2]


def product():
    x, w = (torch.randn(SIDE, SIDE, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return {"matmul_tflops": 2 * SIDE**3 / seconds(lambda: x @ w.T, 10) / 1e12}


def attention():
    def heads(count):
        return torch.randn(1, count, TOKENS, 128, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)

    q, k, v = heads(16), heads(8), heads(8)

    def forward():
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    with torch.no_grad():
        forward_s = seconds(forward)
    out = forward()
    grad = torch.randn_like(out)
    backward_s = seconds(lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True))
    return {"sdpa_forward_s": forward_s, "sdpa_backward_s": backward_s}


def step():
    """fp32 weights under bf16 autocast, two micro-batches of one sequence, AdamW: an update as it is usually written."""
    from transformers import AutoModelForCausalLM, Qwen3Config

    config = Qwen3Config(num_attention_heads=16, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True,
                         max_position_embeddings=TOKENS + 1, attn_implementation="sdpa", **SHAPE)
    model = AutoModelForCausalLM.from_config(config).to(DEVICE)
    model.gradient_checkpointing_enable()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    tokens = torch.randint(config.vocab_size, (1, TOKENS), device=DEVICE)

    def update():
        for _ in range(2):
            with torch.autocast(DEVICE, dtype=torch.bfloat16):
                loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    per_update = seconds(update, 3)
    found = {"step_tokens_per_s": 2 * TOKENS / per_update}
    return found if TRY else {**found, "step_gib": torch.cuda.max_memory_allocated() / 2**30}


def too_long(*_):
    raise TimeoutError("it takes too long")


def main():
    found = {"torch": torch.__version__}
    # What is found by then is printed all the same.
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(50)
    for part in (product, attention, step):
        try:
            found.update(part())
        except Exception as error:  # each of them is worth having without the others
            found[f"{part.__name__}_error"] = f"{type(error).__name__}: {error}"
            print(found[f"{part.__name__}_error"], file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    if not TRY and not torch.cuda.is_available():
        sys.exit("PyTorch sees no CUDA card")
    main()
