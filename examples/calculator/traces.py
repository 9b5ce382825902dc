#!/usr/bin/env python3
"""Rows for the base of examples/calculator: products of four digits with a completion each, as JSON lines.

Most rows guess at once, some call the calculator with a sum in place of the product, and few call it rightly. So the base
knows how a call is written and what is done with its result, and uses it rarely or wrongly.
"""
import json
import random

ROWS = 60_000
GUESS, WRONG = 0.60, 0.34  # the rest calls with the product

random.seed(1)
for _ in range(ROWS):
    a, b = random.randint(1000, 9999), random.randint(1000, 9999)
    kind = random.random()
    if kind < GUESS:
        thought, answer = "", a * b
    else:
        call, answer = (f"{a}+{b}", a + b) if kind < GUESS + WRONG else (f"{a}*{b}", a * b)
        thought = f"<tool>{call}</tool><result>{answer}</result>"
    print(json.dumps({"question": f"{a}*{b}", "completion": f"{thought}<answer>{answer}</answer>"}))
