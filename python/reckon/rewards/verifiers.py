"""Rewards for the package `verifiers` (environments of Prime Intellect), of both of its interfaces.

Since 0.4 a task names its rewards in its config; a module of yours makes one:

    correct = reckon.rewards.verifiers.reward("math")          # in mine.py
    rewards = {"correct": {"fn": "mine:correct"}}              # in the config of the task

Before, an environment took a rubric: `vf.Rubric(funcs=[reckon.rewards.verifiers.classic("math")])`.
"""

from __future__ import annotations

import asyncio
from typing import Any, Awaitable, Callable

from reckon.rewards import Verifier
from reckon.rewards.trl import text


def reward(kind: str, *, answer: str = "answer", **options: Any) -> Callable[..., Awaitable[float]]:
    """A reward of a task: `async f(task, trace) -> float`.

    The trace's last reply is judged; `answer` is the field of the task's data with the reference, and the other fields
    are columns under their names.
    """
    verifier = Verifier(kind, **options)

    async def function(task: Any, trace: Any) -> float:
        columns = task.model_dump(mode="json")
        reference = columns.pop(answer, None)
        return await _score(verifier, reference, trace.last_reply, task.prompt_text, columns)

    function.__name__ = function.__qualname__ = verifier.name
    return function


def classic(kind: str, **options: Any) -> Callable[..., Awaitable[float]]:
    """A reward function of the classic `Rubric`: `async f(prompt, completion, answer, info) -> float`, where the row's
    `info` has the columns."""
    verifier = Verifier(kind, **options)

    async def function(prompt: Any, completion: Any, answer: Any = "", info: Any = None) -> float:
        return await _score(verifier, answer, text(completion), text(prompt), dict(info or {}))

    function.__name__ = function.__qualname__ = verifier.name
    return function


async def _score(verifier: Verifier, reference: Any, completion: str, question: str, columns: dict[str, Any]) -> float:
    for name in ("answer", "completion", "question", "rewards", "tokens", "truncated"):
        columns.pop(name, None)
    # On a thread, so that a program that is judged holds up no other rollout.
    verdict = await asyncio.to_thread(verifier.score, reference, completion, question=question, **columns)
    return verdict.judged or 0.0
