"""A reward function for TRL: `GRPOTrainer(reward_funcs=reward("math"), ...)`.

It is called as TRL calls any: `f(prompts=..., completions=..., **columns) -> list of float or None`. Completions that no
verifier judges are None, which TRL leaves out. What a completion contains cannot raise; a row that cannot be judged does.
"""

from __future__ import annotations

from typing import Any, Callable, Optional, Union

from reckon.rewards import Rubric, Verifier

# What TRL says of a step beside the columns of the dataset.
NOT_COLUMNS = ("completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
RewardFunction = Callable[..., "list[Optional[float]]"]


def reward(
    judge: Union[str, Verifier, Rubric], *, answer: str = "answer", name: Optional[str] = None, **options: Any
) -> RewardFunction:
    """A reward function of a verifier, of a rubric, or of a kind with its options.

    `answer` is the column of the dataset with the reference; all columns are handed to the verifier under their names.
    `name` is what TRL calls the reward in its logs.
    """
    if isinstance(judge, str):
        judge = Verifier(judge, **options)
    elif options:
        raise TypeError(f"options go with the name of a kind, not with {judge!r}: {', '.join(options)}")
    is_rubric = isinstance(judge, Rubric)

    def function(prompts: list, completions: list, **columns: Any) -> list[Optional[float]]:
        if answer not in columns and not is_rubric and judge.kind in NEED_ANSWER:
            known = ", ".join(sorted(set(columns) - set(NOT_COLUMNS))) or "none"
            raise KeyError(f"the dataset has no column {answer!r} (it has {known}); name one: reward(..., answer=COLUMN)")
        tokens = columns.get("completion_ids")
        rows = {key: value for key, value in columns.items() if key not in NOT_COLUMNS and key != answer}
        rows = {key: value for key, value in rows.items() if key not in ("answer", "completion", "tokens", "truncated")}
        if tokens is not None:
            rows["tokens"] = tokens
        rows.setdefault("question", [text(prompt) for prompt in prompts])
        answers = columns.get(answer, [None] * len(completions))
        said = judge.score_batch(answers, [text(completion) for completion in completions], **rows)
        return [one.total for one in said] if is_rubric else [one.judged for one in said]

    default = "_".join(judge.names) if is_rubric else judge.name
    function.__name__ = function.__qualname__ = name or default
    return function


# Kinds that compare with a reference, for which a dataset without the column is a mistake.
NEED_ANSWER = ("exact", "math", "numeric", "choice")


def text(said: Union[str, list]) -> str:
    """The text of a prompt or completion: of a conversation, the contents of the last message."""
    if isinstance(said, str):
        return said
    content = said[-1].get("content") if said else ""
    if isinstance(content, list):  # parts, as of messages with pictures
        return "".join(part.get("text") or "" for part in content)
    return content or ""
