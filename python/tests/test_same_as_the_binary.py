"""The module says what the binary says, of files too: both are the same crate, and this sees where they are not."""

import json
import os
import pathlib
import subprocess
import sys

import pairs
import pytest
import reckon
from reckon.rewards import Verifier

# The published solutions to GSM8K, example_model_solutions.jsonl of openai/grade-school-math, where they are at hand.
SOLUTIONS = os.environ.get("RECKON_GSM8K_SOLUTIONS")


def binary(path, *more):
    command = [reckon.binary(), "verify", "score", "--json", path, *more]
    return subprocess.run(command, capture_output=True, text=True)


def module(path, *more):
    command = [sys.executable, "-m", "reckon.rewards", path, *more]
    return subprocess.run(command, capture_output=True, text=True)


def same(rows, tmp_path, kind="math"):
    """Verdicts of the module, batched, one by one and of a file, once they equal the binary's."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"answer": a, "completion": c}) + "\n" for a, c in rows), encoding="utf-8")
    theirs = binary(path, "--kind", kind).stdout.splitlines()
    verifier = Verifier(kind)
    batch = verifier.score_batch([a for a, _ in rows], [c for _, c in rows])
    assert [verdict.to_json() for verdict in batch] == theirs
    assert [verifier.score(a, c) for a, c in rows] == batch
    assert verifier.score_file(path) == batch
    return batch


def test_pairs_of_the_crate_get_the_verdicts_of_the_binary(tmp_path):
    rows = pairs.math_pairs()
    labelled = pairs.lines("math_verify_pairs.jsonl")
    verdicts = same(rows, tmp_path)
    agreeing = sum(verdict.passed == row["equal"] for verdict, row in zip(verdicts, labelled))
    assert (len(labelled), agreeing) == (143, 139), "rewards/README.md names the four"
    assert len(rows) > 1000


@pytest.mark.skipif(not SOLUTIONS, reason="RECKON_GSM8K_SOLUTIONS names no file")
def test_published_solutions_get_the_verdicts_of_the_binary_and_of_their_authors(tmp_path):
    problems = [json.loads(line) for line in pathlib.Path(SOLUTIONS).read_text(encoding="utf-8").splitlines()]
    solutions = [
        (problem["ground_truth"].rsplit("A: ")[-1], solution["solution"], solution["is_correct"])
        for problem in problems
        for solution in problem.values()
        if isinstance(solution, dict)
    ]
    verdicts = same([(answer, text) for answer, text, _ in solutions], tmp_path)
    assert len(verdicts) == 5276
    assert [verdict.passed for verdict in verdicts] == [right for *_, right in solutions]


@pytest.mark.parametrize(
    "kind, sets, rows",
    [
        ("numeric", ["tolerance=0.1"], '{"answer": 1.5, "completion": "<answer>1.6</answer>"}\n'),
        ("numeric", ["extract.from=whole"], '{"answer": "two", "completion": "2"}\n{"answer": 2, "completion": "2"}\n'),
        ("exact", ["extract={from = 'last_line'}"], '{"answer": "é", "completion": "so\\né"}\n'),
        ("length", ["rule=soft_overlong", "max=9", "cache=3"], '{"completion": "a b c d e f g h"}\n'),
        ("countdown", [], '{"nums": [3, 4], "target": 7, "completion": "<answer>3+4</answer>"}\n'),
    ],
)
def test_the_module_as_a_program_prints_what_the_binary_prints(tmp_path, kind, sets, rows):
    path = tmp_path / "rows.jsonl"
    path.write_text(rows, encoding="utf-8")
    options = ["--kind", kind] + [word for one in sets for word in ("--set", one)]
    for more in (options, [*options, "--json"]):
        theirs = subprocess.run([reckon.binary(), "verify", "score", path, *more], capture_output=True, text=True)
        ours = module(path, *more)
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), ours.stderr
        assert ours.stderr.splitlines() == theirs.stderr.splitlines()


def test_the_program_says_what_is_wrong_in_one_line(tmp_path):
    for arguments, expected in [
        (["nowhere.jsonl", "--kind", "math"], "nowhere.jsonl"),
        (["nowhere.jsonl", "--kind", "maths"], "maths"),
        (["nowhere.jsonl", "--kind", "math", "--set", "x"], "no `=`"),
    ]:
        done = module(*arguments)
        assert done.returncode == 1 and expected in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
