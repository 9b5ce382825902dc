"""A reward function for TRL: `GRPOTrainer(reward_funcs=reward("math"), ...)`.

It is called as TRL calls any: `f(prompts=..., completions=..., **columns) -> list of float or None`. Completions that
no verifier judges are None, which TRL leaves out. What a completion contains cannot raise; a row that cannot be judged
does.
"""

from __future__ import annotations

from typing import Any, Callable, Optional, Union

from reckon.rewards import Rubric, Verifier

# What TRL says of a step beside the columns of the dataset, and names that a verifier has for something else.
NOT_COLUMNS = {
    "trainer_state",
    "log_extra",
    "log_metric",
    "environments",
    "answer",
    "completion",
    "rewards",
    "tokens",
    "truncated",
}
# Kinds that compare with a reference, for which a dataset without the column is a mistake.
NEED_ANSWER = {"exact", "math", "numeric", "choice"}
Said = Union[str, "list[dict[str, Any]]"]
RewardFunction = Callable[..., "list[Optional[float]]"]


def reward(
    judge: Union[str, Verifier, Rubric], *, answer: str = "answer", name: Optional[str] = None, **options: Any
) -> RewardFunction:
    """A reward function of a verifier, of a rubric, or of a kind with its options.

    `answer` is the column of the dataset with the reference; all columns are handed to the verifier under their names.
    What a `rollout_func` returns as `tool_rewards`, a list for each completion, is what kind `environment` reads.
    `name` is what TRL calls the reward in its logs.
    """
    if options and not isinstance(judge, str):
        raise TypeError(f"options go with the name of a kind, not with {judge!r}: {', '.join(options)}")
    rule = Verifier(judge, **options) if isinstance(judge, str) else judge
    needs_answer = isinstance(rule, Verifier) and rule.kind in NEED_ANSWER

    def function(prompts: list[Said], completions: list[Said], **columns: Any) -> list[Optional[float]]:
        ids, given = columns.pop("completion_ids", None), columns.pop("tool_rewards", None)
        rows = {key: value for key, value in columns.items() if key not in NOT_COLUMNS}
        if needs_answer and answer not in columns:
            known = ", ".join(sorted(rows)) or "none"
            raise KeyError(
                f"the dataset has no column {answer!r} (it has {known}); name one: reward(..., answer=COLUMN)"
            )
        answers = columns.get(answer, [None] * len(completions))
        rows.pop(answer, None)
        rows.setdefault("question", [text(prompt) for prompt in prompts])
        if ids is not None:
            rows["tokens"] = ids
        if given is not None:
            rows["rewards"] = given
        texts = [text(completion) for completion in completions]
        if isinstance(rule, Rubric):
            return [score.total for score in rule.score_batch(answers, texts, **rows)]
        return [verdict.judged for verdict in rule.score_batch(answers, texts, **rows)]

    default = "_".join(rule.names) if isinstance(rule, Rubric) else rule.name
    function.__name__ = function.__qualname__ = name or default
    return function


def text(said: Said) -> str:
    """The text of a prompt or completion: of a conversation, the content of the last message."""
    if isinstance(said, str):
        return said
    content = said[-1].get("content") if said else ""
    if isinstance(content, list):  # parts, as of messages with pictures
        return "".join(part.get("text") or "" for part in content)
    return content or ""
