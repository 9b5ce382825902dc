"""Runs a program as the interpreter would, with the two names that module site, left out for speed, would bring. The
arguments are its file and, before it, perhaps that of the prelude."""

import builtins
import sys

builtins.exit = builtins.quit = sys.exit
files = sys.argv[1:]
sys.argv[:] = files[-1:]
scope = sys.modules["__main__"].__dict__
scope["__file__"] = files[-1]
load(files, scope)
