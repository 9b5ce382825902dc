"""Rule-based verifiers, and the rubric that makes one reward of several.

    >>> from reckon.rewards import Verifier
    >>> math = Verifier("math")
    >>> math.score("1/2", r"so it is $\\boxed{\\frac{2}{4}}$").reward
    1.0
    >>> [verdict.reward for verdict in math.score_batch(["3", "4"], ["The answer is 3.", "I do not know."])]
    [1.0, 0.0]

A completion that is wrong, unreadable, endless or hostile gets a verdict with reward 0. An exception means that the
options (`ConfigError`), the row (`ExampleError`) or the machinery (`InfraError`) are broken. Batches are judged on all
cores, without Python's lock. `python -m reckon.rewards --help` judges a file.
"""

from __future__ import annotations

import json as _json

from reckon import _binary
from reckon.rewards._native import Rubric, Score, Verdict, Verifier, kinds
from reckon.rewards._native import set_helper as _set_helper
from reckon.rewards.errors import ConfigError, ExampleError, InfraError, VerifierError

# Programs of kind `code` run under the binary, which puts itself into the sandbox and becomes them.
if (_found := _binary.find()) is not None:
    _set_helper(_found)
del _found


def _restore(what: str, kind: str, config: str) -> Verifier | Rubric:
    """What pickle makes a verifier or a rubric of."""
    options = _json.loads(config)
    if what == "Verifier":
        return Verifier(kind, **options)
    return Rubric(options["verifiers"], options["mode"], options["max_error_share"])


__all__ = [
    "ConfigError",
    "ExampleError",
    "InfraError",
    "Rubric",
    "Score",
    "Verdict",
    "Verifier",
    "VerifierError",
    "kinds",
]
