"""Where the binary `reckon` is."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Iterator, Optional

VARIABLE = "RECKON_BINARY"


def binary() -> Path:
    """The binary `reckon`: what RECKON_BINARY names, the one that was installed with this package, or that on the path.

    Raises FileNotFoundError where there is none.
    """
    found = find()
    if found is None:
        raise FileNotFoundError(f"there is no binary `reckon`: install the wheel, or name one in {VARIABLE}")
    return found


def find() -> Optional[Path]:
    """The same, or None."""
    return next((place for place in _places() if place.is_file() and os.access(place, os.X_OK)), None)


def _places() -> Iterator[Path]:
    named = os.environ.get(VARIABLE)
    if named:
        yield Path(named)
        return
    # Beside this package first: `pip install --target` and `--user` put both under one folder.
    package = Path(__file__).resolve().parent
    yield package.parent / "bin" / "reckon"
    yield Path(sysconfig.get_path("scripts")) / "reckon"
    yield Path(sys.executable).parent / "reckon"
    user = "posix_user"
    if user in sysconfig.get_scheme_names():
        yield Path(sysconfig.get_path("scripts", user)) / "reckon"
    on_path = shutil.which("reckon")
    if on_path:
        yield Path(on_path)
