"""No completion hangs or kills the process: each gets a verdict, in a process of its own that is watched."""

import subprocess
import sys

import pairs
import pytest

SCRIPT = """
import sys, time
import pairs
from reckon.rewards import Verifier

kinds = {
    "format": ({}, None), "exact": ({}, "4"), "math": ({}, "$\\\\sqrt{x^2+1}$"), "numeric": ({}, "4"), "choice": ({}, "B"),
    "regex": ({"pattern": "(a*)*b"}, None), "countdown": ({}, None), "logic": ({}, '{"B": "3"}'),
    "json_schema": ({"schema": {"minimum": 4}}, None), "instructions": ({}, None), "language": ({}, None),
    "repetition": ({}, None), "length": ({"rule": "soft_overlong", "max": 9, "cache": 4}, None), "code": ({}, None),
}
columns = {
    "numbers": [3, 4, 7], "target": 49, "tests": [{"input": "", "output": "4"}],
    "instruction_id_list": ["language:response_language"], "kwargs": [{"language": "en"}],
}
options, answer = kinds[sys.argv[1]]
verifier = Verifier(sys.argv[1], **options)
texts = list(pairs.hostile())
many = {name: [value] * len(texts) for name, value in columns.items()}
slowest = 0
for text, verdict in zip(texts, verifier.score_batch([answer] * len(texts), texts, **many)):
    start = time.monotonic()
    assert verifier.score(answer, text, **columns) == verdict, (text[:60], verdict)
    slowest = max(slowest, time.monotonic() - start)
    assert verdict.reward <= 1 and verdict.outcome != "error", verdict
print(len(texts), slowest)
"""
KINDS = ["format", "exact", "math", "numeric", "choice", "regex", "countdown", "logic", "json_schema", "instructions"]


@pytest.mark.parametrize("kind", [*KINDS, "language", "repetition", "length", "code"])
def test_any_text_gets_a_verdict_at_once(kind):
    folder = str(pairs.ROOT / "python/tests")
    done = subprocess.run([sys.executable, "-c", SCRIPT, kind], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    count, slowest = done.stdout.split()
    # On an idle machine the slowest takes a tenth of it.
    assert int(count) > 2000 and float(slowest) < 10, done.stdout


PROGRAMS = {
    "a fork bomb": "import os\nwhile True: os.fork()",
    "all of the memory": "x = []\nwhile True: x.append(bytearray(1 << 26))",
    "endless output": "while True: print('x' * 100000)",
    "a killed parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nprint(4)",
    "no end": "while True: pass",
    "deep recursion": "def f(): f()\nimport sys\nsys.setrecursionlimit(10**9)\nf()",
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_hostile_programs_end_and_this_process_does_not(what):
    from reckon.rewards import Verifier

    verifier = Verifier("code", limits={"time_s": 1})
    verdict = verifier.score("", f"```python\n{PROGRAMS[what]}\n```", tests=[{"input": "", "output": "4"}])
    assert what == "a killed parent" or not verdict.passed, verdict
    assert verifier.score("", "```python\nprint(4)\n```", tests=[{"input": "", "output": "4"}]).passed
