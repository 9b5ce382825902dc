"""A verifier in Python: the answer must be a quantity with its unit. Run by the tests:

    reckon verify test examples/verifiers/units.cases.jsonl --kind python --set entry=examples/verifiers/units.py:verify
"""
import re

METRES = {"mm": 0.001, "cm": 0.01, "m": 1.0, "km": 1000.0}


def metres(text):
    found = re.fullmatch(r"\s*(\d{1,12}(?:\.\d{1,12})?)\s*(mm|cm|km|m)\s*", text)
    return float(found[1]) * METRES[found[2]] if found else None


def verify(row):
    said = metres(row["completion"].rsplit("</think>")[-1])
    if said is None:
        return {"reward": 0.0, "reason": "no length with a unit"}
    return {"reward": float(abs(said - metres(row["answer"])) < 1e-9), "parsed": f"{said} m"}
