"""Functions in the forms in which people write them."""
import asyncio
import functools
from decimal import Decimal
from fractions import Fraction

GATE = asyncio.Semaphore(1)
LOOPS = set()


class Array:
    """An array of numpy or a tensor of torch, as far as a reward is concerned."""

    def __init__(self, *values):
        self.values = values

    def __iter__(self):
        return iter(self.values)

    def item(self):
        if len(self.values) != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self.values[0]


class Scaled:
    """A class of callable objects."""

    def __init__(self, scale=1.0):
        self.scale = scale

    def __call__(self, completions, answer):
        return [self.scale * (text == right) for text, right in zip(completions, answer)]

    def judge(self, row):
        return self.scale * (row["completion"] == row["answer"])


class Waits:
    async def __call__(self, row):
        return await with_gate(row["completion"] == row["answer"])


async def with_gate(value):
    async with GATE:
        LOOPS.add(id(asyncio.get_running_loop()))
        await asyncio.sleep(0)
    assert len(LOOPS) == 1, "every call is on the same loop"
    return value


scaled = Scaled(3)
half = functools.partial(Scaled(), answer=["4", "4"])
waits = Waits()


async def trl_async(completions, answer, **kwargs):
    return await asyncio.gather(*(with_gate(float(text == right)) for text, right in zip(completions, answer)))


async def verl_async(data_source, solution_str, ground_truth):
    return {"score": await with_gate(solution_str == ground_truth)}


async def plain_async(row):
    return await with_gate(row["completion"] == row["answer"])


VALUES = {
    "true": True,
    "int": 2,
    "decimal": Decimal("0.25"),
    "fraction": Fraction(1, 2),
    "array": Array(0.75),
    "array of true": Array(True),
    "none": None,
    "text": "1.0",
    "bytes": b"1",
    "array of text": Array("1"),
    "nan": float("nan"),
    "decimal nan": Decimal("NaN"),
    "infinity": float("inf"),
    "huge": 10**400,
    "two": Array(0.5, 1.0),
    "list": [1.0],
    "complex": 1 + 0j,
    "object": object,
}


def value(row):
    return VALUES[row["completion"]]


def values(completions, **kwargs):
    return Array(*(VALUES[text] for text in completions))


def scores(solution_str, **kwargs):
    return VALUES[solution_str]


def no_score(solution_str, **kwargs):
    return {"acc": 1.0}


def no_reward(row):
    return {"reason": "forgotten"}


WHOLE = {"text": "11", "none": None, "number": 1.0, "dict": {"a": 1, "b": 2}, "short": [1.0], "long": [None] * 3}


def whole(completions, **kwargs):
    return WHOLE[completions[0]]


def number_of(completions, **kwargs):
    return [float(text) for text in completions]


def number_of_one(row):
    return float(row["completion"])


def numbers_of_all(rows):
    return [float(row["completion"]) for row in rows]


def told(prompts, completions, completion_ids, question, answer, solution, tools, source):
    """Declares what it takes, and says what it got."""
    assert question == ["2 + 2?"] * 2 and answer == ["thus\n#### 4"] * 2 and solution == ["It is 4."] * 2
    assert tools == [[{"b": 1, "a": 2}]] * 2 and source == [None] * 2
    return [1.0] * len(completions)


def everything(prompts, completions, **columns):
    assert "prompt" not in columns and "completion" not in columns, sorted(columns)
    return [float(len(prompts) == 2 and columns["level"] == [3, 3])] * len(completions)


CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]


def chats(prompts, completions, **kwargs):
    return [float(said[0]["content"] == "4" and prompt == CHAT) for prompt, said in zip(prompts, completions)]


def texts(prompts, completions, **kwargs):
    return [float(said.strip() == "4" and prompt == "2 + 2?") for prompt, said in zip(prompts, completions)]


def asks_the_user_alone(prompts, **kwargs):
    return [float(prompt == CHAT[1:]) for prompt in prompts]
