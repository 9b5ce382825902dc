"""Functions of kind `python`, for the tests."""
import os
import random
import sys


def verify(row):
    print("user code may print")
    sys.stdout.flush()
    os.write(1, b'{"id": 0, "reward": 0}\n')
    assert sys.stdin.read() == "", "the protocol's input is out of reach"
    return row["completion"].strip() == row["answer"]


def partial(row, scale=1.0):
    return {"reward": scale * row["info"]["share"], "reason": "as the row says", "parsed": row["completion"]}


def shortest(rows):
    least = min(len(row["completion"]) for row in rows)
    return [len(row["completion"]) == least for row in rows]


def one_too_few(rows):
    return [1.0] * (len(rows) - 1)


def draws(row):
    return random.random()


def raises(row):
    return {}[row["completion"]]


def sees(row):
    return row["completion"] in os.environ


def after_the_mark(row):
    before, mark, answer = row["completion"].rpartition("Answer: ")
    return bool(mark) and answer == row["answer"] + "."


def not_of_b(row):
    if row["answer"] == "b":
        return None
    return float(after_the_mark(row)) if row["answer"] != "c" else float("c")


def anywhere(row):
    return row["answer"] in row["completion"]


def earned(row):
    return sum(row["rewards"])


def most_earned(rows):
    best = max(sum(row["rewards"]) for row in rows)
    return [sum(row["rewards"]) == best for row in rows]
