"""Runs a program as the interpreter would, with the two names that module site, left out for speed, would bring."""

import builtins
import sys

builtins.exit = builtins.quit = sys.exit
file = sys.argv[1]
sys.argv[:] = [file]
with open(file, "rb") as source:
    code = compile(source.read(), file, "exec")
scope = sys.modules["__main__"].__dict__
scope["__file__"] = file
del source
exec(code, scope)
