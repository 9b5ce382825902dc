"""Any task of reasoning-gym as data set and verifier. `pip install reasoning-gym`, then

    PYTHONHASHSEED=0 python3 reasoning_gym_tasks.py 100 chain_sum leg_counting > rows.jsonl

writes 100 rows a task, and `kind = "python"`, `entry = "reasoning_gym_tasks.py:verify"` judges completions of them.
Workers run under hash seed 0, and some tasks have other rows under another.
"""
import functools
import json
import sys

import reasoning_gym


@functools.lru_cache(maxsize=None)
def dataset(task, size):
    return reasoning_gym.create_dataset(task, seed=0, size=size)


def verify(row):
    task, index, size = (row["info"][key] for key in ("task", "index", "size"))
    tasks = dataset(task, size)
    answer = row["completion"].rsplit("</think>")[-1].strip()
    try:
        return float(tasks.score_answer(answer, tasks[index])) >= 1.0
    except ValueError:  # prime_factorization hands whatever it is given to int()
        return False


def rows(task, size):
    for index, entry in enumerate(dataset(task, size)):
        yield {"question": entry["question"], "answer": entry["answer"], "task": task, "index": index, "size": size}


if __name__ == "__main__":
    from reasoning_gym.factory import DATASETS

    out, sys.stdout = sys.stdout, sys.stderr  # some tasks print while they generate
    for name in sys.argv[2:] or sorted(DATASETS):
        try:
            for each in rows(name, int(sys.argv[1])):
                print(json.dumps(each), file=out)
        except Exception as error:  # some tasks need more than the package
            print(f"{name} is left out: {error}", file=sys.stderr)
