#!/usr/bin/env python3
"""Pairs a second from Python, in one run: reckon.rewards one by one and batched, and the package math-verify.

Run it in an environment with the wheel and math-verify: python scripts/python_speed.py [PAIRS]. Ends with 1 where ours
is less than 50 times as fast one by one, or 100 times batched.
"""

import json
import logging
import os
import pathlib
import sys
import time
from importlib.metadata import version

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAIRS = ROOT / "rewards/tests/it/math/math_verify_pairs.jsonl"


def rate(rows, judge):
    """Rows a second, once to warm up and once on the clock."""
    judge(rows)
    start = time.perf_counter()
    judge(rows)
    return len(rows) / (time.perf_counter() - start)


def main():
    from math_verify import parse, verify
    from reckon.rewards import Verifier

    logging.disable(logging.CRITICAL)
    pairs = [(row["reference"], row["completion"]) for row in map(json.loads, PAIRS.read_text().splitlines())]
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    many = (pairs * (count // len(pairs) + 1))[:count]
    math = Verifier("math")

    def theirs(rows):
        return [verify(parse(reference), parse(completion)) for reference, completion in rows]

    def one_by_one(rows):
        return [math.score(reference, completion) for reference, completion in rows]

    def batched(rows):
        return math.score_batch([reference for reference, _ in rows], [completion for _, completion in rows])

    base = rate(pairs, theirs)
    rates = {"one by one": rate(many, one_by_one), "batched": rate(many, batched)}
    print(f"math-verify {version('math-verify')}: {base:.0f} pairs/s over its own {len(pairs)} pairs, one by one")
    for name, ours in rates.items():
        print(f"reckon.rewards {name}: {ours:.0f} pairs/s over {count}, {ours / base:.0f} times as many")
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}")
    sys.exit(0 if rates["one by one"] >= 50 * base and rates["batched"] >= 100 * base else 1)


if __name__ == "__main__":
    main()
