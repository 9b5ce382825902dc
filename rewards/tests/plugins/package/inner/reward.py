"""A file inside a package, which imports as files of packages do."""
from .. import SCALE
from ..text import clean
from . import beside
from package.text import clean as same_clean


def verify(row):
    assert clean is same_clean and beside.NAME == "beside"
    return SCALE * (clean(row["completion"]) == row["answer"])
