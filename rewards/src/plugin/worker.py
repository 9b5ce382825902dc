"""A worker of the Python plug-ins: reads a call a line, calls the user's function, writes an answer a line.

The host passes this text to `python3 -c`, with a JSON object that says which function, and in which style it is called.
"""
import functools
import importlib
import importlib.util
import inspect
import json
import math
import numbers
import os
import random
import sys
import traceback


def load(entry, kwargs):
    """The function that `file.py:function` or `module:function` names, with `kwargs` bound."""
    place, colon, name = entry.rpartition(":")
    if not colon:
        raise ValueError(f"entry {entry!r} is not file.py:function or module:function")
    sys.path.insert(0, os.path.dirname(os.path.abspath(place)) if place.endswith(".py") else os.getcwd())
    if place.endswith(".py"):
        module_name = os.path.basename(place)[:-3]
        spec = importlib.util.spec_from_file_location(module_name, place)
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # pickle and dataclasses look their module up by name
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(place)
    function = functools.reduce(getattr, name.split("."), module)
    return functools.partial(function, **kwargs) if kwargs else function


def judged(value):
    """What a function returned, as the host reads it."""
    if type(value) in (bool, int, float):
        reward = value
    elif isinstance(value, dict):
        kept = {key: str(value[key]) for key in ("reason", "parsed") if value.get(key) is not None}
        kept["reward"] = judged(value["reward"])["reward"]
        return kept
    elif isinstance(value, numbers.Real):
        reward = float(value)
    elif hasattr(value, "item"):  # a scalar of numpy or torch
        return judged(value.item())
    else:
        raise TypeError(f"the function returned {value!r}: a bool, a number, or a dict with `reward` was expected")
    if not math.isfinite(reward):
        raise ValueError(f"the function returned {reward}, which is not a finite number")
    return {"reward": reward}


def judged_list(values, batch):
    values = list(values)
    if len(values) != len(batch):
        raise ValueError(f"the function returned {len(values)} rewards for {len(batch)} completions")
    return values


def plain(function, config):
    def judge(call):
        if "batch" in call:
            return [judged(value) for value in judged_list(function(call["batch"]), call["batch"])]
        return judged(function(call))

    return judge


def trl(function, config):
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    names = {p.name for p in parameters}

    def message(role, text):
        return [{"role": role, "content": text}] if config["conversational"] else text

    def prompt(row):
        given = row["info"].get("prompt")
        return given if config["conversational"] and isinstance(given, list) else message("user", row["question"])

    def judge(call):
        batch = call.get("batch", [call])
        columns = {key: [row["info"].get(key) for row in batch] for row in batch for key in row["info"]}
        columns[config["answer_column"]] = [row["answer"] for row in batch]
        columns["prompts"] = [prompt(row) for row in batch]
        columns["completions"] = [message("assistant", row["completion"]) for row in batch]
        columns["completion_ids"] = [row.get("token_ids", []) for row in batch]
        columns["log_extra"] = columns["log_metric"] = lambda *_: None
        columns["trainer_state"] = None
        columns = {key: value for key, value in columns.items() if takes_all or key in names}
        values = function(**columns)
        if inspect.iscoroutine(values):
            import asyncio

            values = asyncio.run(values)
        values = judged_list(values, batch)
        verdicts = [{"outcome": "skipped"} if value is None else judged(value) for value in values]
        return verdicts if "batch" in call else verdicts[0]

    return judge


def verl(function, config):
    def judge(call):
        info = call["info"]
        reward_model = info.get("reward_model") or {}
        value = function(
            data_source=info.get("data_source"),
            solution_str=call["completion"],
            ground_truth=reward_model.get("ground_truth", call["answer"]),
            extra_info=info.get("extra_info"),
        )
        return judged(value["score"] if isinstance(value, dict) else value)

    return judge


def told(error):
    """The last line of a traceback, and where it points to."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    return traceback.format_exception_only(error)[-1].strip() + place


def main():
    # The user's prints go to standard error, and the user's reads get nothing: the protocol keeps its own ends.
    answers, calls = os.dup(1), os.fdopen(os.dup(0), "rb", 1 << 16)
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def say(answer):
        line = json.dumps(answer).encode() + b"\n"
        while line:
            line = line[os.write(answers, line) :]

    config = json.loads(sys.argv[1])
    try:
        styles = {"plain": plain, "trl": trl, "verl": verl}
        judge = styles[config["style"]](load(config["entry"], config["kwargs"]), config)
    except Exception as error:
        traceback.print_exc()
        return say({"error": told(error)})
    say({"ready": True})
    for line in calls:
        call = json.loads(line)
        # Whichever worker judges, and whatever it judged before: a function that draws draws the same.
        random.seed(0)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(0)
        try:
            value = judge(call)
            answer = {"verdicts": value} if isinstance(value, list) else value
        except MemoryError:
            os._exit(1)  # the completion broke the worker, which may not be whole any more
        except Exception as error:
            traceback.print_exc()
            answer = {"error": told(error)}
        answer["id"] = call["id"]
        say(answer)


main()
