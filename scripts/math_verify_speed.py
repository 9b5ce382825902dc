#!/usr/bin/env python3
"""Verdicts a second of the Python package math-verify and of kind `math`, over the same pairs in the same run.

Needs `pip install math-verify==0.9.0` and a Rust toolchain. Run from anywhere: python3 scripts/math_verify_speed.py
"""

import json
import logging
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAIRS = ROOT / "rewards/tests/it/math/math_verify_pairs.jsonl"
BENCH = ["cargo", "bench", "-q", "-p", "reckon-rewards", "--bench", "verdicts", "--", "math_verify_pairs"]
UNITS = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0}


def math_verify_rate(rows):
    """Parses both sides and compares them, as a reward function does, once to warm up and once on the clock."""
    from math_verify import parse, verify

    def verdicts():
        for row in rows:
            verify(parse(row["reference"]), parse(row["completion"]))

    verdicts()
    start = time.perf_counter()
    verdicts()
    return len(rows) / (time.perf_counter() - start)


def main():
    logging.disable(logging.CRITICAL)
    rows = [json.loads(line) for line in PAIRS.read_text().splitlines()]
    theirs = math_verify_rate(rows)
    print(f"math-verify: {theirs:.1f} verdicts/s over {len(rows)} pairs")
    ours = subprocess.run(BENCH, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    time_of_all, unit = re.search(r"time: +\[\S+ \S+ (\S+) (\S+)", ours).groups()
    rate = len(rows) / (float(time_of_all) * UNITS[unit])
    print(f"kind math: {rate:.1f} verdicts/s")
    print(f"ratio: {rate / theirs:.0f}")
    sys.exit(0 if rate >= 100 * theirs else 1)


if __name__ == "__main__":
    main()
