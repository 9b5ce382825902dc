"""Adapters, called as their frameworks call them; inside the frameworks they are run by scripts/python_frameworks."""

import asyncio
import types

import pytest
from reckon.rewards import Rubric, Verifier, trl, verifiers, verl

SAID = [{"role": "assistant", "content": r"so \boxed{4}"}]


def test_trl_gets_a_reward_for_each_completion_of_texts_or_conversations():
    math = trl.reward("math")
    assert math.__name__ == "math"
    of_trl = {"completion_ids": [[1], [2]], "trainer_state": None, "log_metric": print, "level": ["easy", "hard"]}
    assert math(prompts=["2+2?"] * 2, completions=[r"\boxed{4}", "five"], answer=["4", "4"], **of_trl) == [1.0, 0.0]
    asked = [{"role": "user", "content": "2+2?"}]
    assert math(prompts=[asked] * 2, completions=[SAID, SAID], answer=["4", "5"], **of_trl) == [1.0, 0.0]
    assert trl.reward("math", answer="solution")(prompts=["?"], completions=["4"], solution=["4"]) == [1.0]
    countdown = trl.reward("countdown", name="solves")
    assert countdown.__name__ == "solves"
    said = countdown(prompts=["?"], completions=["<answer>3+4</answer>"], numbers=[[3, 4]], target=[7])
    assert said == [1.0]
    length = trl.reward("length", rule="soft_overlong", max=4, cache=2, unit="tokens")
    assert length(prompts=["?"], completions=["x"], completion_ids=[[1, 2, 3]]) == [-0.5]


def test_trl_is_told_which_column_is_missing():
    with pytest.raises(KeyError, match="no column 'answer'.*level"):
        trl.reward("math")(prompts=["?"], completions=["4"], level=["easy"])
    with pytest.raises(TypeError, match="decimal_places"):
        trl.reward(Verifier("math"), decimal_places=2)


def test_a_rubric_and_what_is_not_judged_reach_trl(tmp_path):
    rubric = trl.reward(Rubric(["math", {"kind": "format", "weight": 0.5}], mode="sum"))
    assert rubric.__name__ == "math_format"
    assert rubric(prompts=["?"], completions=["<think>a</think><answer>4</answer>"], answer=["4"]) == [1.5]
    (tmp_path / "mine.py").write_text("def verify(row):\n    return None\n")
    silent = trl.reward("python", entry=f"{tmp_path}/mine.py:verify")
    assert silent(prompts=["?"], completions=["4"]) == [None]


def test_verl_gets_what_its_own_scorers_return():
    assert verl.compute_score("gsm8k", "#### 4", "4", {"index": 3}) == {"score": 1.0, "acc": True, "pred": "4"}
    said = verl.compute_score(
        "countdown", "<answer>3+4</answer>", {"target": 8, "numbers": [3, 4]}, None, kind="countdown"
    )
    assert said == {"score": 0.0, "acc": False, "pred": "3+4"}
    assert verl.compute_score(
        "x", "<answer>1.04</answer>", "1", {}, kind="numeric", tolerance=0.1
    ) == {"score": 1.0, "acc": True, "pred": "26/25"}  # fmt: skip
    assert verl.compute_score("x", "nothing", "4", kind="numeric") == {"score": 0.0, "acc": False, "pred": ""}


def test_what_tools_gave_is_read_where_trl_and_verl_have_it():
    environment = trl.reward("environment", of="last")
    said = environment(prompts=["?"] * 2, completions=["x", "x"], tool_rewards=[[0.0, 0.5], []], rewards=[[9], [9]])
    assert said == [0.5, 0.0]
    extra_info = {"tool_rewards": [0.25, 0.5], "turn_scores": []}
    said = verl.compute_score("game", "x", None, extra_info, kind="environment", of="sum")
    assert said["score"] == 0.75


def test_verifiers_gets_a_reward_of_a_task_and_a_function_of_a_rubric():
    task = types.SimpleNamespace(prompt_text="2+2?", model_dump=lambda mode: {"answer": "4", "idx": 1})
    trace = types.SimpleNamespace(last_reply=r"\boxed{4}")
    assert asyncio.run(verifiers.reward("math")(task=task, trace=trace)) == 1.0
    function = verifiers.classic("math")
    assert asyncio.run(function(prompt="2+2?", completion=SAID, answer="5", info={})) == 0.0
