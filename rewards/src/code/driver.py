"""Calls one function of a program and reports what it returned. Runs beside the program, so it proves nothing: the host
compares the value, and what was expected is not here. The arguments are the program's file and, before it, perhaps
that of the prelude."""

import os
import sys

sys.path[:] = [path for path in sys.path if path not in ("", os.getcwd())]

import builtins
import json
import types

# Module site, left out for speed, would bring these.
builtins.exit = builtins.quit = sys.exit


def call(function, args, kwargs):
    program = types.ModuleType("program")
    sys.modules["program"] = program
    load(sys.argv[1:], program.__dict__)
    target = program
    solution = getattr(program, "Solution", None)
    # Where a dataset names `f` alone, LeetCode's programs have it as a method of this class.
    if isinstance(solution, type) and hasattr(solution, function):
        target = solution
    for name in function.split("."):
        # A method is called on an instance made without arguments, as `Solution().solve`.
        target = getattr(target() if isinstance(target, type) else target, name)
    return target(*args, **kwargs)


def unwrapped(value):
    """What numpy's arrays and numbers hold."""
    if type(value).__module__.partition(".")[0] == "numpy":
        return value.tolist()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def with_plain_keys(value):
    """A copy whose dictionaries have no numpy numbers as keys, which JSON's encoder shows to nobody."""
    if isinstance(value, dict):
        keys = [key if key is None or isinstance(key, (int, float, str)) else unwrapped(key) for key in value]
        return dict(zip(keys, map(with_plain_keys, value.values())))
    if isinstance(value, (list, tuple)):
        return [with_plain_keys(item) for item in value]
    return value


def text(value, dumps):
    try:
        return dumps(value, default=unwrapped, allow_nan=False)
    except TypeError:
        return dumps(with_plain_keys(value), default=unwrapped, allow_nan=False)


def main():
    request = json.loads(sys.stdin.buffer.read())
    # From here on what the program prints goes to standard error; the record has the old standard output to itself.
    channel = os.dup(1)
    os.dup2(2, 1)
    dumps, write, leave = json.dumps, os.write, os._exit
    nonce = request.pop("nonce")
    value = call(request["function"], request["args"], request["kwargs"])
    record = (nonce + text(value, dumps) + "\n").encode()
    while record:
        record = record[write(channel, record):]
    # No handler that the program left behind gets a turn.
    leave(0)


main()
