"""Verifiers and rubrics from Python: verdicts, columns, batches, and what is refused."""

import copy
import os
import pickle
import threading
import time

import pytest
from reckon.rewards import ConfigError, ExampleError, InfraError, Rubric, Score, Verdict, Verifier, VerifierError, kinds

SQUARE = [{"args": [3], "expected": 9, "function": "square"}]
RULE = {"type": "object", "required": ["a"]}


@pytest.mark.parametrize(
    "kind, options, answer, completion, columns, expected",
    [
        ("math", {}, "1/2", r"\boxed{\frac{2}{4}}", {}, (1.0, "pass", "\\frac{2}{4}")),
        ("math", {}, ["3", "4"], r"\boxed{4}", {}, (1.0, "pass", "4")),
        ("math", {"extract": {"from": "boxed"}}, "4", "The answer is 4.", {}, (0.0, "unparsed", None)),
        ("numeric", {}, 1234, "<answer>1,234</answer>", {}, (1.0, "pass", "1234")),
        ("numeric", {"tolerance": 0.1}, 1.5, "<answer>1.6</answer>", {}, (1.0, "pass", "8/5")),
        ("numeric", {}, 10**30 + 1, f"<answer>{10**30}</answer>", {}, (0.0, "fail", str(10**30))),
        ("exact", {"ignore_case": True}, "Yes", "<answer>yes</answer>", {}, (1.0, "pass", "yes")),
        ("choice", {}, "B", "<answer>(B)</answer>", {}, (1.0, "pass", "B")),
        ("regex", {"pattern": r"\d+"}, None, "<answer>12</answer>", {}, (1.0, "pass", "12")),
        ("format", {}, None, "<think>so</think><answer>1</answer>", {}, (1.0, "pass", None)),
        ("countdown", {}, None, "<answer>(3+4)*7</answer>", {"numbers": [3, 4, 7], "target": 49}, (1.0, "pass", "(3+4)*7")),
        ("countdown", {}, None, "<answer>3+4</answer>", {"nums": (3, 4), "target": 8}, (0.0, "fail", "3+4")),
        ("logic", {}, '{"Ann": "knight"}', "<answer>Ann is a knave</answer>", {}, (0.0, "fail", None)),
        ("json_schema", {"schema": RULE}, None, '<answer>{"a": 1}</answer>', {}, (1.0, "pass", None)),
        (
            "instructions", {}, None, "no comma here",
            {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}, (1.0, "pass", None),
        ),
        ("length", {"rule": "soft_overlong", "max": 4, "cache": 2, "unit": "tokens"}, None, "x", {"tokens": [1, 2, 3]}, (-0.5, "fail", None)),
        ("environment", {"range": [-1, 1]}, None, "x", {"rewards": [1, 0.5]}, (0.75, "fail", "0.5")),
        ("environment", {}, None, "x", {"rewards": []}, (0.0, "unparsed", None)),
    ],
)  # fmt: skip
def test_each_kind_gives_its_verdict(kind, options, answer, completion, columns, expected):
    verifier = Verifier(kind, **options)
    verdict = verifier.score(answer, completion, **columns)
    reward, outcome, parsed = expected
    assert (verdict.reward, verdict.outcome) == (reward, outcome), verdict
    assert parsed is None or verdict.parsed == parsed, verdict
    in_a_batch = verifier.score_batch(
        [answer] * 40, [completion] * 40, **{key: [value] * 40 for key, value in columns.items()}
    )
    assert in_a_batch == [verdict] * 40
    assert verifier.score_rows([{"answer": answer, "completion": completion, **columns}]) == [verdict]


def test_rewards_of_tools_are_finite_numbers():
    for rewards in ([float("nan")], ["1"], 1.0):
        with pytest.raises(ExampleError, match="`rewards` must be a list of finite numbers"):
            Verifier("environment").score(None, "x", rewards=rewards)


def test_programs_run_in_the_sandbox_of_the_binary_that_came_with_the_package():
    code = Verifier("code", limits={"time_s": 1})
    texts = ["```python\ndef square(x): return x * x\n```", "```python\nwhile True: pass\n```", "none"]
    verdicts = code.score_batch(["", "", ""], texts, tests=[SQUARE] * 3)
    assert [verdict.outcome for verdict in verdicts] == ["pass", "timeout", "unparsed"]


def test_functions_in_python_judge_in_workers(tmp_path):
    (tmp_path / "mine.py").write_text("def verify(row):\n    return len(row['completion']) / row['info']['most']\n")
    verifier = Verifier("python", entry=f"{tmp_path}/mine.py:verify")
    assert [v.reward for v in verifier.score_batch(["", ""], ["abc", "a"], most=[10, 4])] == [0.3, 0.25]


def test_workers_stay_with_the_process_that_made_them(tmp_path):
    (tmp_path / "mine.py").write_text("def verify(row):\n    return True\n")
    verifier, math = Verifier("python", entry=f"{tmp_path}/mine.py:verify"), Verifier("math")
    assert verifier.score("", "x").passed
    child = os.fork()
    if child == 0:
        try:
            code = 1 if math.score_batch(["1"] * 99, ["1"] * 99)[0].passed else 2
            verifier.score("", "x")
        except InfraError as error:
            code = 0 if code == 1 and "forked" in str(error) else 3
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert verifier.score("", "x").passed


def test_all_kinds_are_named():
    assert {"math", "numeric", "code", "python_trl", "http"} <= set(kinds()) and "rust" not in kinds()


def test_a_rubric_makes_one_reward_of_several_verdicts(tmp_path):
    completion = r"<think>so</think><answer>7</answer>"
    binary = Rubric(["math", {"kind": "format", "weight": 0}])
    score = binary.score("7", completion)
    assert (score.total, list(score.parts), score.parts["math"].passed) == (1.0, ["math", "format"], True)
    summed = Rubric([{"kind": "math", "name": "right"}, {"kind": "format", "weight": 0.25}], mode="sum")
    assert [s.total for s in summed.score_batch(["7", "8", "8"], [completion, completion, ""])] == [1.25, 0.25, 0.0]
    config = tmp_path / "config.toml"
    config.write_text("steps = 3\n[rubric]\nmode = 'sum'\n[[rubric.verifiers]]\nkind = 'math'\nweight = 0.5\n")
    assert Rubric.from_config(config).score("7", completion).total == 0.5


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Verifier("maths"), ConfigError, "unknown variant `maths`"),
        (lambda: Verifier("math", decimals=3), ConfigError, "decimals"),
        (lambda: Verifier("regex", pattern="("), ConfigError, "regex"),
        (lambda: Verifier("math", weight=2), ConfigError, "weight"),
        (lambda: Verifier("math", decimal_places={1, 2}), TypeError, "set"),
        (lambda: Rubric([]), ConfigError, "no verifier counts"),
        (lambda: Rubric(["math", "math"]), ConfigError, "two verifiers"),
        (lambda: Rubric(["math"], mode="mean"), ConfigError, "mean"),
        (lambda: Rubric.from_config("nowhere.toml"), ConfigError, "nowhere.toml"),
        (lambda: Verifier("numeric").score("two", "<answer>2</answer>"), ExampleError, '"two" is not a number'),
        (lambda: Verifier("numeric").score(["1", {}], "x"), ExampleError, "answer"),
        (lambda: Verifier("math").score("1", None), ExampleError, "NoneType"),
        (lambda: Verifier("math").score_batch(["1"], ["1", "2"]), ValueError, "1 values of `answer` for 2 completions"),
        (lambda: Verifier("math").score_batch("12", ["1", "2"]), ValueError, "must be a sequence"),
        (lambda: Verifier("countdown").score("", "<answer>1</answer>"), ExampleError, "numbers"),
        (lambda: Verifier("math").score_rows([{"answer": "1"}]), ExampleError, 'no column "completion"'),
        (lambda: Verifier("math").score_file("nowhere.jsonl"), ExampleError, "nowhere.jsonl"),
        (lambda: Verdict(1.0, "passed"), ValueError, "passed"),
    ],
)  # fmt: skip
def test_what_is_broken_is_an_exception_that_names_it(make, error, message):
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)
    assert not issubclass(error, VerifierError) or isinstance(caught.value, (ValueError, RuntimeError))


def test_a_function_that_raises_is_no_reward(tmp_path):
    (tmp_path / "broken.py").write_text("def verify(row):\n    raise KeyError('lost')\n")
    verifier = Verifier("python", entry=f"{tmp_path}/broken.py:verify", pool={"retries": 0})
    with pytest.raises(InfraError, match="lost"):
        verifier.score("", "x")
    lenient = Verifier("python", entry=f"{tmp_path}/broken.py:verify", on_error="skip")
    verdict = lenient.score("", "x")
    assert (verdict.outcome, verdict.judged) == ("error", None)


def test_a_row_that_cannot_be_judged_hides_no_others():
    rows = [{"answer": answer, "completion": "<answer>2</answer>"} for answer in ("two", 2, 3)]
    first, *others = Verifier("numeric").score_rows(rows)
    assert isinstance(first, ExampleError) and "row 0" in str(first)
    assert [verdict.reward for verdict in others] == [1.0, 0.0]


def test_values_are_equal_and_can_be_pickled():
    verifier = Verifier("numeric", tolerance=0.1)
    rubric = Rubric([{"kind": "math", "weight": 0.3}, "format"], mode="sum")
    verdict, score = verifier.score(1, "<answer>1.05</answer>"), rubric.score("7", r"\boxed{7}")
    assert isinstance(score, Score) and score.total == 0.3
    for value in (verdict, score):
        assert pickle.loads(pickle.dumps(value)) == value == copy.deepcopy(value)
    assert pickle.loads(pickle.dumps(verifier)).score(1, "<answer>1.05</answer>") == verdict
    assert pickle.loads(pickle.dumps(rubric)).score("7", r"\boxed{7}") == score
    assert repr(verdict) == "Verdict(reward=1.0, outcome='pass', parsed='21/20', reason='equal')"
    assert eval(repr(verdict)) == verdict
    assert verdict.as_dict() == {"reward": 1.0, "outcome": "pass", "parsed": "21/20", "reason": verdict.reason}


def test_other_threads_run_while_a_batch_is_judged():
    count, over = 0, threading.Event()

    def judge():
        Verifier("math").score_batch(["$x^2+1$"] * 20_000, [r"\boxed{(x+1)^2-2x}"] * 20_000)
        over.set()

    thread = threading.Thread(target=judge)
    thread.start()
    while not over.is_set():
        count += 1
        time.sleep(0.001)
    thread.join()
    assert count > 20, "the lock was held"


def test_values_of_numpy_are_columns():
    numpy = pytest.importorskip("numpy")
    verifier = Verifier("countdown")
    assert verifier.score(None, "<answer>3+4</answer>", numbers=numpy.array([3, 4]), target=numpy.int64(7)).passed
    verdicts = Verifier("numeric").score_batch(numpy.array([1.5, 2]), ["<answer>1.5</answer>", "<answer>3</answer>"])
    assert [verdict.passed for verdict in verdicts] == [True, False]


def test_a_value_without_end_is_refused():
    endless = []
    endless.append(endless)
    with pytest.raises(ValueError, match="nested"):
        Verifier("math").score("1", "1", x=endless)
