"""Prints the table of examples/big-teaches-small: the mean held-out accuracy of each arm with a 95% interval over seeds."""

import json
import sys
from pathlib import Path
from statistics import mean, stdev

# Student's t, 97.5%, by degrees of freedom.
T = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78}
ARMS = [
    ("rl", "small, reinforcement learning alone"),
    ("verified", "small, SFT on the big one's verified traces"),
    ("on-policy", "small, traces, then on-policy distillation"),
    ("verified-rl", "small, traces, then reinforcement learning"),
    ("unverified", "control: traces as they come"),
    ("shuffled", "control: traces of other problems"),
]


def main():
    out, seeds = Path(sys.argv[1]), sys.argv[2:]
    read = lambda name: json.loads((out / f"{name}.eval").read_text())["pass@1"]
    print("| model | accuracy | seeds |\n|---|---|---|")
    for name, label in (("big", "big, after reinforcement learning"), ("base", "small, base")):
        print(f"| {label} | {read(name):.3f} | |")
    for arm, label in ARMS:
        values = [read(f"{arm}-{seed}") for seed in seeds]
        half = T[len(values) - 1] * stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        print(f"| {label} | {mean(values):.3f} ± {half:.3f} | {', '.join(f'{value:.3f}' for value in values)} |")


main()
