"""`python -m reckon.rewards`: a verdict for each row of a file, as `reckon verify score` gives them."""

from __future__ import annotations

import argparse
import json
import os
import sys

from reckon.rewards import ExampleError, Verifier, VerifierError, kinds
from reckon.rewards._native import parse_sets

# Rows that cannot be judged and are named one by one.
NAMED = 10


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m reckon.rewards", description=__doc__)
    parser.add_argument("file", help="JSON Lines, JSON, CSV or Parquet with columns answer, completion and others")
    parser.add_argument("--kind", required=True, help="which verifier: " + ", ".join(kinds()))
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="an option of the kind; TOML, or text"
    )
    parser.add_argument("--json", action="store_true", help="print one verdict in each line, in order")
    return parser.parse_args()


def main() -> int:
    asked = arguments()
    try:
        said = Verifier(asked.kind, **parse_sets(asked.set)).score_file(asked.file)
    except (VerifierError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    faults = [one for one in said if isinstance(one, ExampleError)]
    verdicts = [one for one in said if not isinstance(one, ExampleError)]
    if asked.json:
        for one in said:
            compact = (",", ":")
            line = json.dumps({"error": str(one)}, ensure_ascii=False, separators=compact)
            print(line if isinstance(one, ExampleError) else one.to_json())
    else:
        judged = sum(verdict.judged is not None for verdict in verdicts)
        left_out = f", {len(verdicts) - judged} were not judged" if judged < len(verdicts) else ""
        print(f"{sum(verdict.passed for verdict in verdicts)} of {judged} pass{left_out}")
    for fault in faults[:NAMED]:
        print(fault, file=sys.stderr)
    if faults:
        print(f"error: {len(faults)} of {len(said)} rows cannot be judged; the other verdicts stand", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads has seen enough; nothing is left to be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
