#!/usr/bin/env python3
"""The table of scripts/gpu-check: each figure beside what is aimed at. Usage: gpu_table.py OUT COMMIT DRIVER

Reads what the parts left in OUT, writes OUT/gpu-check.json. Ends with 1 if a part failed or a figure misses its aim.
"""

import datetime
import json
import pathlib
import sys

PARTS = ["doctor", "tests", "full", "eight_bit", "lora", "lora_4b", "experts", "latent", "delta", "sampling", "growth", "resume", "torch"]
# Those of other kinds of layers, and what they measure.
OTHER = {"experts": "OLMoE, 4 layers", "latent": "V2-Lite, 4 layers", "delta": "Qwen3.5-0.8B"}
# Parts whose output is not JSON.
TEXT = ["doctor", "tests"]


def read(out):
    """How each part ended and what it printed; an ending other than `passed` leaves no figures."""
    parts = {}
    for name in PARTS:
        status, printed = out / f"{name}.status", out / f"{name}.json"
        ending = status.read_text().strip() if status.exists() else "did not run"
        figures = {}
        if ending == "passed" and name not in TEXT:
            try:
                figures = json.loads(printed.read_text())
            except ValueError:
                ending = "printed no JSON"
        parts[name] = {"status": ending, "figures": figures}
    return parts


def figure(parts, part, *path):
    """A number of a part's figures, or None."""
    value = parts[part]["figures"]
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, (int, float)) else None


def ratio(above, below):
    return above / below if above and below else None


def at_least(aim):
    return lambda value: value >= aim


def at_most(aim):
    return lambda value: value <= aim


def below(aim):
    return lambda value: value < aim


def update_rows(parts, part, name, speed, memory):
    """Rows of an update: speed, memory, and memory as the plan has it."""
    held, planned = figure(parts, part, "update", "gib", "total", "held"), figure(parts, part, "update", "gib", "total", "planned")
    off = abs(planned / held - 1) if held and planned else None
    return [
        (f"update, {name}", figure(parts, part, "update", "tokens_per_s"), "{:,.0f} tokens/s",
         f"above {speed:,}" if speed else "", (lambda value: value > speed) if speed else None),
        (f"  share of the rate of products", figure(parts, part, "update", "share_of_product_rate"), "{:.1%}",
         "40%" if part == "full" else "", at_least(0.4) if part == "full" else None),
        ("  memory", held, "{:.2f} GiB", f"below {memory}" if memory else "", below(memory) if memory else None),
        ("  memory, distance from the plan", off, "{:.1%}", "5%", at_most(0.05)),
    ]


def sampling_rows(parts, part, name, rows):
    """Rows of sampling so many completions at a time: speed, and memory as the plan has it."""
    of = lambda *path: figure(parts, part, "sampling", "rows", str(rows), *path)
    held, planned = of("gib", "held"), of("gib", "planned")
    return [
        (f"sampling, {name}, {rows} rows", of("tokens_per_s"), "{:,.0f} tokens/s", "", None),
        ("  memory", held, "{:.2f} GiB", "", None),
        ("  memory, distance from the plan", abs(planned / held - 1) if held and planned else None, "{:.1%}", "5%",
         at_most(0.05)),
    ]


def rows(parts):
    """Name, figure or None, its format, what is aimed at, and whether a figure meets it."""
    of = lambda *path: figure(parts, *path)
    forward, backward = of("full", "attention", "forward_s"), of("full", "attention", "backward_s")
    return [
        ("products, bf16", of("full", "products", "tflops"), "{:.0f} TFLOP/s", "", None),
        ("  PyTorch's", of("torch", "matmul_tflops"), "{:.0f} TFLOP/s", "", None),
        ("attention forward, 16k x 128", forward and 1e3 * forward, "{:.2f} ms", "", None),
        ("  speed beside PyTorch's", ratio(of("torch", "sdpa_forward_s"), forward), "{:.0%}", "50%", at_least(0.5)),
        ("attention backward, 16k x 128", backward and 1e3 * backward, "{:.2f} ms", "", None),
        ("  speed beside PyTorch's", ratio(of("torch", "sdpa_backward_s"), backward), "{:.0%}", "50%", at_least(0.5)),
        ("vocabulary of 151,936, beside its weights", of("full", "vocabulary", "mib_beside_weights"), "{:.0f} MiB",
         "below 256", below(256)),
        *update_rows(parts, "full", "Qwen3-0.6B", 16400, 12.5),
        *update_rows(parts, "eight_bit", "Qwen3-0.6B, 8-bit moments", None, None),
        *update_rows(parts, "lora", "Qwen3-0.6B, LoRA 16", 16400, 5.1),
        *update_rows(parts, "lora_4b", "Qwen3-4B, LoRA 16", 6200, 23.3),
        *(row for part, name in OTHER.items() for row in update_rows(parts, part, f"{name}, LoRA 16", None, None)),
        *sampling_rows(parts, "sampling", "Qwen3-0.6B", 64),
        *sampling_rows(parts, "sampling", "Qwen3-0.6B", 256),
        *(row for part, name in OTHER.items() for row in sampling_rows(parts, part, name, 64)),
        ("PyTorch and transformers, Qwen3-0.6B", of("torch", "step_tokens_per_s"), "{:,.0f} tokens/s", "", None),
        ("  memory", of("torch", "step_gib"), "{:.2f} GiB", "", None),
        ("memory after 200 updates against 10", of("growth", "growth", "growth"), "{:+.2%}", "1%",
         lambda value: abs(value) <= 0.01),
        ("resumed run, files equal to the bit", of("resume", "equal_files"), "{:.0f}", "all", at_least(1)),
    ]


def main(out, commit, driver):
    out = pathlib.Path(out)
    parts = read(out)
    card = parts["full"]["figures"].get("card") or "no card"
    report = {"date": str(datetime.date.today()), "commit": commit, "driver": driver, "card": card, "parts": parts}
    (out / "gpu-check.json").write_text(json.dumps(report, indent=2))
    print(f"{report['date']}  {card}  driver {driver or 'unknown'}  commit {commit}\n")
    missed = 0
    for name, value, form, aim, meets in rows(parts):
        met = "" if value is None or meets is None else "met" if meets(value) else "MISSED"
        missed += met == "MISSED"
        shown = "-" if value is None else form.format(value)
        print(f"{name:<44}{shown:>18}  {aim:<14}{met}".rstrip())
    print()
    for name in PARTS:
        status = parts[name]["status"]
        print(f"{name:<12}{status}" + ("" if status == "passed" else f": see {name}.log and {name}.json in {out}"))
    return 1 if missed or any(part["status"] != "passed" for part in parts.values()) else 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
