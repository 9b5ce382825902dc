"""Relative imports without a single `__init__.py`."""
from ..shared import is_right
from .beside import FULL


def verify(row):
    return FULL * is_right(row)
