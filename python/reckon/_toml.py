"""Just enough TOML to write a config: dicts become tables, and lists of dicts arrays of tables, all inline."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any, Mapping

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def loads(text: str) -> dict[str, Any]:
    """The table of a document."""
    table: dict[str, Any] = tomllib.loads(text)
    return table


def dumps(table: Mapping[str, Any]) -> str:
    """A document with one line for each key; keys whose value is None are left out."""
    return "".join(f"{_key(key)} = {value(item)}\n" for key, item in table.items() if item is not None)


def value(item: Any) -> str:
    """A value as it stands behind `=`."""
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, (str, Path)):
        # TOML's escapes are JSON's, but for DEL.
        return json.dumps(str(item), ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(item, int):
        return str(item)
    if isinstance(item, float):
        return repr(item) if math.isfinite(item) else str(item)
    if isinstance(item, Mapping):
        inside = (f"{_key(key)} = {value(below)}" for key, below in item.items() if below is not None)
        return "{" + ", ".join(inside) + "}"
    if isinstance(item, (list, tuple)):
        return "[" + ", ".join(value(one) for one in item) + "]"
    if hasattr(item, "tolist"):  # scalars and arrays of numpy
        return value(item.tolist())
    raise TypeError(f"{item!r} is a {type(item).__name__}, which a config cannot hold")


def _key(key: str) -> str:
    plain = key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key)
    return key if plain else value(key)
