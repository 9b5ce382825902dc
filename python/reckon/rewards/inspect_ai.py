"""A scorer for inspect_ai: `Task(dataset=..., solver=generate(), scorer=reckon_scorer("math"))`.

The sample's target is the reference, or several of which any will do; its metadata are the columns. A completion that
is not judged is unscored.
"""

from __future__ import annotations

from typing import Any

import anyio.to_thread
from inspect_ai.scorer import Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import TaskState

from reckon.rewards import Verifier


@scorer(metrics=[accuracy(), stderr()])
def reckon_scorer(kind: str = "math", **options: Any) -> Scorer:
    """Scores by a verifier: the reward is the value, what was read the answer, and why the explanation."""
    verifier = Verifier(kind, **options)

    async def score(state: TaskState, target: Target) -> Score:
        columns = {
            key: value for key, value in state.metadata.items() if key not in ("answer", "completion", "question")
        }
        completion = state.output.completion

        def judge() -> Any:
            return verifier.score(list(target), completion, question=state.input_text, **columns)

        verdict = await anyio.to_thread.run_sync(judge)
        value = float("nan") if verdict.judged is None else verdict.judged
        return Score(value=value, answer=verdict.parsed, explanation=verdict.reason)

    return score
