"""Pairs that the crate is tested with, and texts that are made to hang or break whoever reads them."""

import json
import pathlib
import random

ROOT = pathlib.Path(__file__).resolve().parents[2]
MATH = ROOT / "rewards/tests/it/math"


def lines(name):
    return [json.loads(line) for line in (MATH / name).read_text(encoding="utf-8").splitlines()]


def math_pairs():
    """Of Math-Verify's own test suite and of attempts to cheat; of our own, by kind of notation."""
    pairs = [
        (row["reference"], row["completion"])
        for name in ("math_verify_pairs.jsonl", "adversarial.jsonl")
        for row in lines(name)
    ]
    return pairs + [(row["reference"], text) for row in lines("kinds.jsonl") for text in row["right"] + row["wrong"]]


def hostile():
    """What the tests of the crate and its audit hold against a verifier, and mixtures of the fuzzers' pieces."""

    def deep(opening, closing):
        return "\\boxed{" + opening * 5000 + "1" + closing * 5000 + "}"

    yield from ("9**9**9**9", r"5^{(5^{(5^{(5^5)})})}", "1e999999999", "9" * 100_000, "(" * 50_000)
    yield from (r"\boxed{9^{9^{9^{9}}}}", r"\boxed{(10^{10^{10}})!}", "\\boxed{" + "x+" * 50_000 + "}")
    yield "\\boxed{" + "(x+y+z+w+1)^{9}" * 200 + "}"
    yield "\\boxed{" + "\\{\\pm" * 400 + "}"
    yield "\\boxed{(x+y+z+u+v+w)^{60}+" + "\\sin(\\sin(x))+" * 100 + "}"
    yield "\\boxed{" + ",".join(f"{n}!" for n in range(400)) + "}"
    yield from ("\\boxed{" * 20_000, "$" * 100_000, "\\[" * 50_000)
    yield from (deep("(", ")"), deep("\\sqrt{", "}"), deep("|", "|"), deep("2^", ""), deep("-", ""))
    million = 1_000_000
    for piece in (
        "(",
        "<",
        "<think>",
        "<answer>",
        "</answer>",
        "</think>",
        "9",
        "1,",
        "-",
        "é",
        "A ",
        " ",
        "[",
        '{"a":',
        "{",
    ):
        yield piece * (million // len(piece))
        yield "<answer>" + piece * (200_000 // len(piece)) + "</answer>"
    yield from ("", "\0", "\ud800", "\udfff\ud800 <answer>\ud800</answer>", "\u202e4\u202c", "a" * 300 * 1024)
    pieces = (MATH / "pieces.txt").read_text(encoding="utf-8").split("\n")
    pieces += ["<think>", "</think>", "<answer>", "</answer>", "####", "99999999999999999999", "÷", "−", "%", "km", "B"]
    chance = random.Random(7)
    for _ in range(2000):
        text = "".join(chance.choices(pieces, k=chance.randrange(1, 40)))
        yield chance.choice(["{}", "\\boxed{{{}}}", "<answer>{}</answer>", "#### {}"]).format(text)
