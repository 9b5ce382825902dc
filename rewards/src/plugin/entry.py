"""What the workers of Python share: from the entry of a config to a function, where the user's files are loaded by their
path, so that no name of theirs stands in the way of a library, and the lines between a worker and its host. Put before
`worker.py` or `tool.py`, which call it.
"""
import sys

# What `python3 -c` puts first is the folder of the run: a file there would be taken for a module of Python.
if sys.path and sys.path[0] == "":
    del sys.path[0]

import ast
import functools
import importlib
import importlib.machinery
import importlib.util
import inspect
import json
import os
import random
import re
import traceback


class Siblings:
    """Imports by the user's own files: the standard library, then the files beside them, then what is installed.

    Libraries find what is installed first; the user's folders stand last in `sys.path`.
    """

    def __init__(self, folders):
        self.folders = folders
        self.standard = set(getattr(sys, "stdlib_module_names", ())) | set(sys.builtin_module_names)
        sys.path.extend(folder for folder in folders if folder not in sys.path)
        sys.meta_path.insert(0, self)

    def find_spec(self, name, path=None, target=None):
        asking = importing_file()
        if path is not None or name in self.standard or not asking or not self.holds(asking):
            return None
        if os.path.basename(asking) == name + ".py":
            return None  # a file that imports its own name means a library
        return importlib.machinery.PathFinder.find_spec(name, self.folders)

    def holds(self, file):
        folders = os.path.dirname(os.path.abspath(file)).split(os.sep)
        installed = "site-packages" in folders or "dist-packages" in folders
        return not installed and any(folders[: len(own)] == own for own in (f.split(os.sep) for f in self.folders))


def importing_file():
    """The file whose import is being resolved."""
    frame = sys._getframe(2)
    while frame and frame.f_globals.get("__name__", "").lstrip("_").startswith(("importlib", "frozen_importlib")):
        frame = frame.f_back
    return frame and frame.f_globals.get("__file__")


def relative_level(path):
    """How many packages the relative imports of a file go up."""
    with open(path, "rb") as file:
        tree = ast.parse(file.read(), path)
    return max((node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)), default=0)


def free_name(name, path):
    """The name itself, or one that no library imports where something else has it or it is none."""
    try:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
    except ValueError:
        spec = importlib.machinery.ModuleSpec(name, None)  # `__main__`
    if name.isidentifier() and (spec is None or spec.origin == path):
        return name
    return "_reckon_" + re.sub(r"\W", "_", name)


def run_file(name, path, package=None):
    """The module of a file under this name, where pickle and dataclasses look it up."""
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=package)
    if not os.path.exists(path) and package:
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)  # a package without `__init__.py`
        spec.submodule_search_locations = package
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if spec.loader:
        spec.loader.exec_module(module)
    return module


def load_file(path):
    """The module at a path. A file in a package, or one with relative imports, is loaded as a part of its package."""
    path = os.path.abspath(os.path.expanduser(path))
    folder, file = os.path.split(path)
    level = relative_level(path)
    packages = []
    while os.path.exists(os.path.join(folder, "__init__.py")) or len(packages) < level:
        packages.append(folder)
        folder = os.path.dirname(folder)
    packages.reverse()
    if not packages:
        name = free_name(file[:-3], path)
        Siblings([folder, os.getcwd()])
        return run_file(name, path)
    top = os.path.join(packages[0], "__init__.py")
    name = free_name(os.path.basename(packages[0]), top)
    Siblings([folder, os.path.dirname(path), os.getcwd()])
    module = run_file(name, top, [packages[0]])
    for package in packages[1:]:
        name += "." + os.path.basename(package)
        module = importlib.import_module(name)
    if file == "__init__.py":
        return module
    name += "." + re.sub(r"\W", "_", file[:-3])
    return sys.modules.get(name) or run_file(name, path)


def load_module(name):
    """The module of this name: a file of the run's folder, or what is installed."""
    base = os.path.join(os.getcwd(), *name.split("."))
    for path in (base + ".py", os.path.join(base, "__init__.py")):
        if os.path.exists(path):
            return load_file(path)
    Siblings([os.getcwd()])
    return importlib.import_module(name)


def named(entry):
    """What `file.py:function` or `module:function` names, and its name."""
    place, colon, name = entry.rpartition(":")
    if not colon:
        raise ValueError(f"entry {entry!r} is not file.py:function or module:function")
    module = load_file(place) if place.endswith(".py") else load_module(place)
    return functools.reduce(getattr, name.split("."), module), name


def load(entry, kwargs):
    """What `entry` names, with `kwargs` bound; of a class, an instance made with them."""
    function, name = named(entry)
    if inspect.isclass(function):
        function, kwargs = function(**kwargs), {}
    if not callable(function):
        raise TypeError(f"{name} is {shown(function)}, which cannot be called: name a function")
    return functools.partial(function, **kwargs) if kwargs else function


def item(value):
    """The value of an array or tensor that holds one; anything else as it is."""
    try:
        return value.item() if hasattr(value, "item") else value
    except (TypeError, ValueError, RuntimeError):
        return value


def number(value):
    """What is one number, an array or tensor of one value too, as a bool or a float; None of anything else."""
    value = item(value)
    try:
        return value if isinstance(value, bool) else float(value) if hasattr(value, "__float__") else None
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def shown(value):
    """The start of a value, on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def told(error):
    """An exception on one line, with where it was raised and the way out where it is known."""
    text = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    of_user = [frame for frame in frames if frame.filename != "<string>"]
    place = f" ({os.path.basename(of_user[-1].filename)}, line {of_user[-1].lineno})" if of_user else ""
    hint = getattr(error, "reckon_hint", None)
    return type(error).__name__ + (": " + text if text else "") + place + ("; " + hint if hint else "")


def serve(prepare):
    """Answers the host's calls, a line each, by the function that `prepare` makes of its settings."""
    # The user's prints go to standard error, and the user's reads get nothing: the protocol keeps its own ends.
    answers, calls = os.dup(1), os.fdopen(os.dup(0), "rb", 1 << 16)
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def say(said):
        line = json.dumps(said).encode() + b"\n"
        while line:
            line = line[os.write(answers, line) :]

    try:
        answer = prepare(json.loads(sys.argv[1]))
    except Exception as error:
        traceback.print_exc()
        return say({"error": told(error)})
    say({"ready": True})
    for line in calls:
        # Whichever worker answers, and whatever it answered before: a function that draws draws the same.
        random.seed(0)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(0)
        say(answer(json.loads(line)))
