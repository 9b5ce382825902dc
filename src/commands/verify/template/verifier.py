"""A verifier of one's own: `verify` says how good a completion is.

Try it on the cases beside it:

    reckon verify test NAME.cases.jsonl --kind python --set entry=NAME.py:verify

and train on it:

    [[rubric.verifiers]]
    kind = "python"
    name = "NAME"
    entry = "NAME.py:verify"
"""


def verify(row):
    """True or False, or a number, or {"reward": ..., "reason": ..., "parsed": ...}.

    `row` has the question, the reference answer, all columns of the row in `info`, and the completion. Wrong text
    is a reward of 0; an exception says that this function is broken, and stops the run.
    """
    said = row["completion"].rsplit("</think>")[-1]
    before, mark, answer = said.rpartition("Answer:")
    if not mark:
        return {"reward": 0.0, "reason": "no line with `Answer:`"}
    return {"reward": float(answer.strip() == row["answer"]), "parsed": answer.strip()}
