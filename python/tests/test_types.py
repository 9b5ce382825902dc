"""Types: the stubs are what the module has, and the package is well typed."""

import subprocess
import sys

import pytest

pytest.importorskip("mypy")

USE = """
from typing import assert_type
from reckon.rewards import Rubric, Score, Verdict, Verifier
import reckon

verifier = Verifier("math", decimal_places=4)
assert_type(verifier.score("1", "1").reward, float)
assert_type(verifier.score_batch(["1"], ["1"], numbers=[[1]]), list[Verdict])
assert_type(Rubric(["math", {"kind": "format"}], mode="sum").score(None, "1"), Score)
for record in reckon.train("x.toml", overrides={"steps": 3}):
    assert_type(record["step"], object)
verifier.score(["1"], b"bytes")
"""


def checked(*arguments):
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_stubs_say_what_the_module_has():
    code, said = checked("mypy.stubtest", "--ignore-disjoint-bases", "reckon.rewards._native")
    assert code == 0, said


def test_the_package_is_well_typed_and_so_is_who_uses_it(tmp_path):
    code, said = checked("mypy", "--strict", "--ignore-missing-imports", "-p", "reckon", "--cache-dir", str(tmp_path))
    said = [line for line in said.splitlines() if "error" in line and "untyped-decorator" not in line]
    assert not [line for line in said if "Found" not in line], said
    (tmp_path / "use.py").write_text(USE)
    code, said = checked("mypy", "--strict", str(tmp_path / "use.py"), "--cache-dir", str(tmp_path))
    wrong = [line for line in said.splitlines() if ": error:" in line]
    assert code == 1 and len(wrong) == 2, said
    assert "assert-type" in wrong[0] and "bytes" in wrong[1], said
