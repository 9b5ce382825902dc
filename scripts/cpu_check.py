"""Speed on a processor, beside TRL and PyTorch written by hand: on each job Reckon, then each of the others, nothing else
running. Prints a table of each job as it is done, and writes all figures to a file.

    cargo build --release
    pip install torch transformers trl datasets accelerate
    python scripts/cpu_check.py [--jobs common,medium,smollm2-135m] [--threads 1,2] [--steps 2] [--out cpu-check.json]

Of the common job in fp32; of the others in fp32 and in bf16, for which `reckon doctor` names the unit. A quarter of an
hour with two threads; a contender that fails or takes longer than ten minutes is told and left out.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECKON = ROOT / "target/release/reckon"
SIXTY_FOUR = "--prompts 8 --group 8 --new 64"
# What `reckon bench` is told, and whether bf16 is measured too.
JOBS = {
    "common": ("--shape common", False),
    "medium": (f"--d 384 --layers 6 --heads 6 --ffn 1024 --vocab 4096 {SIXTY_FOUR}", True),
    "smollm2-135m": (f"--shape smollm2-135m {SIXTY_FOUR}", True),
}
SPEEDS = ["sample_tokens_per_s", "update_tokens_per_s", "step_s"]


def contenders(job, threads, steps):
    """Names and commands."""
    options, bf16 = JOBS[job]
    own = [RECKON, "bench", "--json", *options.split(), "--threads", str(threads), "--steps", str(steps)]
    peer = [sys.executable, ROOT / "scripts/cpu_peers.py"]
    for_peers = ["--shape", job, "--threads", str(threads), "--steps", str(steps)]
    for name in ["fp32", "bf16"] if bf16 else ["fp32"]:
        yield f"Reckon {name}", own + ["--precision", name]
        for which, word in [("trl", "TRL"), ("torch", "PyTorch")]:
            yield f"{word} {name}", peer + [which] + for_peers + (["--bf16"] if name == "bf16" else [])


def measured(name, command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        print(f"{name}: longer than ten minutes", file=sys.stderr)
    except (subprocess.CalledProcessError, json.JSONDecodeError, IndexError) as error:
        print(f"{name}: {error}\n{getattr(error, 'stderr', '')[-2000:]}", file=sys.stderr)
    return None


def table(job, threads, results):
    """A row a contender, and how many times as fast Reckon in the same precision is."""
    print(f"\n{job}, {threads} threads\n\n| | sampling, tokens/s | update, tokens/s | step, s | Reckon beside it |")
    print("|---|---|---|---|---|")
    for name, figures in results.items():
        sampling, update, step = (figures[speed] for speed in SPEEDS)
        own = results.get(f"Reckon {name.split()[1]}")
        beside = ""
        if own and own is not figures:
            ratios = [own[SPEEDS[0]] / sampling, own[SPEEDS[1]] / update, step / own[SPEEDS[2]]]
            beside = ", ".join(f"{ratio:.2f}x" for ratio in ratios)
        elif own:
            share = figures["update_matmul_gflops"], figures["matmul_best_gflops"]
            beside = f"update at {share[0]:.0f} of {share[1]:.0f} GFLOP/s"
        print(f"| {name} | {sampling:,.0f} | {update:,.0f} | {step:.2f} | {beside} |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("cpu-check.json"))
    args = parser.parse_args()
    if not RECKON.exists():
        sys.exit(f"{RECKON} is not there: cargo build --release")

    print(subprocess.run([RECKON, "doctor"], capture_output=True, text=True).stdout)
    figures = []
    for job in args.jobs.split(","):
        # A large model on one thread takes minutes a step and says little more.
        for threads in [int(word) for word in args.threads.split(",")][-1 if job == "smollm2-135m" else 0:]:
            results = {}
            for name, command in contenders(job, threads, args.steps):
                if result := measured(name, command):
                    results[name] = result
                    figures.append({"job": job, "contender": name} | result)
                    args.out.write_text(json.dumps(figures, indent=1))
            table(job, threads, results)


if __name__ == "__main__":
    main()
