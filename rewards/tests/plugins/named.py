"""Copied under the names of Python's own modules: what the library imports must stay the library's."""
import dataclasses
import json
import logging
import math
import multiprocessing
import pickle
import random
import tempfile
import types
import typing

import helpers


@dataclasses.dataclass
class Answer:
    text: "str"


def double(x):
    return 2 * x


def verify(row):
    copy = pickle.loads(pickle.dumps(Answer(row["completion"])))
    assert typing.get_type_hints(Answer) == {"text": str}
    assert math.floor(random.random()) == 0 and types.SimpleNamespace(a=1).a == 1 and logging.INFO and tempfile.tempdir != 1
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(double, [1, 2]) == [2, 4]
    return helpers.same(json.loads(json.dumps(copy.text)), row["answer"])
