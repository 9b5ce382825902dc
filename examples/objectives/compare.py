"""Trains the embedded task with every preset and several seeds, and prints a table: held-out accuracy, tokens, time.

    cargo build --release
    python examples/objectives/compare.py --out runs

A run that is in the folder already is not made again, so the comparison can be stopped and gone on with; one that was cut
short is made anew. Every run samples as many completions: presets that resample do not, and `remax` gives one of each group to its baseline.
"""

import argparse
import json
import math
import shutil
import subprocess
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PRESETS = ROOT / "src" / "config" / "grpo" / "presets.toml"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reckon", default=ROOT / "target" / "release" / "reckon", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--steps", default=40, type=int)
    parser.add_argument("--seeds", default=3, type=int)
    parser.add_argument("--at-a-time", default=2, type=int, help="runs made side by side, each on one thread")
    parser.add_argument("--presets", nargs="*", default=list(tomllib.loads(PRESETS.read_text())))
    parser.add_argument("--table", action="store_true", help="print the table of the runs that are there")
    return parser.parse_args()


def train(args, preset, seed, out):
    group = 15 if preset == "remax" else 16
    sets = [f"grpo.preset={preset}", f"seed={seed}", f"steps={args.steps}", f"eval.every={args.steps}",
            f"save.every={args.steps}", "save.rollouts_every=0", "compute.threads=1", "compute.device=cpu",
            "grpo.resample_max=0", "rollout.prompts_per_step=8", f"rollout.group_size={group}"]
    if preset == "gdpo":
        # Two verifiers that each say something of their own.
        sets.append("rubric.mode=sum")
    command = [str(args.reckon), "train", "--out", str(out)]
    for setting in sets:
        command += ["--set", setting]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def records(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def interval(passed, n):
    """Wilson's 95% interval of a share."""
    z, p = 1.96, passed / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def row(preset, runs, problems):
    last = [found[-1] for found in runs]
    accuracies = [record["eval/pass@1"] for record in last]
    low, high = interval(sum(accuracies) * problems, problems * len(accuracies))
    mean = lambda name, of=last: sum(record.get(name, 0) for record in of) / len(of)
    steps = [record for found in runs for record in found[1:]]
    seeds = ", ".join(f"{accuracy:.3f}" for accuracy in accuracies)
    return (f"| `{preset}` | {sum(accuracies) / len(accuracies):.3f} | {low:.3f} to {high:.3f} | {seeds} "
            f"| {mean('eval/len_mean'):.0f} | {mean('policy/entropy'):.3f} | {mean('optim/updates', steps):.1f} |")


def main():
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    name = lambda preset, seed: args.out / f"{preset}-{seed}-{args.steps}"

    def make(job):
        preset, seed = job
        run = name(preset, seed)
        if (run / "done").exists():
            return
        if run.exists():
            shutil.rmtree(run)
        train(args, preset, seed, run)
        (run / "done").touch()

    if not args.table:
        jobs = [(preset, seed) for seed in range(1, args.seeds + 1) for preset in args.presets]
        with ThreadPoolExecutor(args.at_a_time) as pool:
            list(pool.map(make, jobs))
    print("| preset | held-out accuracy | 95% interval | by seed | tokens | entropy | updates a step |\n|---|---|---|---|---|---|---|")
    found = {preset: [records(name(preset, seed)) for seed in range(1, args.seeds + 1) if (name(preset, seed) / "done").exists()]
             for preset in args.presets}
    for preset, runs in sorted(found.items(), key=lambda item: -sum(r[-1]["eval/pass@1"] for r in item[1]) / max(len(item[1]), 1)):
        if runs:
            print(row(preset, runs, 300))


main()
