"""Calls one function of program.py and reports what it returned. Runs beside the program, so it proves nothing: the
host compares the value, and what was expected is not here."""

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
    with open("program.py", encoding="utf-8") as file:
        source = file.read()
    exec(compile(source, "program.py", "exec"), program.__dict__)
    target = program
    for name in function.split("."):
        # A method is called on an instance made without arguments, as `Solution().solve`.
        target = getattr(target() if isinstance(target, type) else target, name)
    return target(*args, **kwargs)


def main():
    request = json.loads(sys.stdin.buffer.read())
    # From here on what the program prints goes to standard error; the record has the old standard output to itself.
    channel = os.dup(1)
    os.dup2(2, 1)
    dump, write, leave = json.dumps, os.write, os._exit
    nonce = request.pop("nonce")
    value = call(request["function"], request["args"], request["kwargs"])
    record = (nonce + dump(value, allow_nan=False) + "\n").encode()
    while record:
        record = record[write(channel, record):]
    # No handler that the program left behind gets a turn.
    leave(0)


main()
