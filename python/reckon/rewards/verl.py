"""`compute_score` for verl. In its config:

    custom_reward_function.path=pkg://reckon.rewards.verl      # or the path of this file
    custom_reward_function.name=compute_score
    +custom_reward_function.reward_kwargs.kind=math

Further `reward_kwargs` are options of the kind.
"""

from __future__ import annotations

import functools
import json
from typing import Any, Mapping, Optional

from reckon.rewards import Verifier

# Verifiers that are kept: a run has one for each combination of kind and options.
_CACHED = 16


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Optional[Mapping[str, Any]] = None,
    kind: str = "math",
    **options: Any,
) -> dict[str, Any]:
    """What verl's own scorers for mathematics return: `score`, `acc` (whether it passes) and `pred` (what was read).

    `ground_truth` is the reference, and the columns that the verifier needs are looked for in `extra_info`; a
    `ground_truth` that is a dict, as of countdown (`{"target": ..., "numbers": ...}`), has them itself. What verl's
    tools gave, `tool_rewards` in there, is what kind `environment` reads.
    """
    columns = dict(extra_info or {})
    if "tool_rewards" in columns:
        columns["rewards"] = columns.pop("tool_rewards")
    for name in ("answer", "completion", "question"):
        columns.pop(name, None)
    answer = ground_truth
    if isinstance(ground_truth, Mapping):
        columns.update(ground_truth)
        answer = columns.pop("answer", None)
    verdict = _verifier(kind, json.dumps(options, sort_keys=True)).score(answer, solution_str, **columns)
    return {"score": verdict.judged or 0.0, "acc": verdict.passed, "pred": verdict.parsed or ""}


@functools.lru_cache(maxsize=_CACHED)
def _verifier(kind: str, options: str) -> Verifier:
    return Verifier(kind, **json.loads(options))
