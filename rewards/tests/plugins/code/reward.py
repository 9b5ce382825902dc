import code as library

from .right import is_right


def verify(row):
    assert library.InteractiveConsole
    return is_right(row)
