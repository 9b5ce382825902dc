"""Reckon from Python: its verifiers, and runs of its trainer.

`reckon.rewards` has the verifiers and the rubric, in this process. `reckon.train` starts the binary `reckon`, which
this package brings along, and gives its records as they come; `reckon.Run` reads what a run left on disk.
"""

from importlib.metadata import PackageNotFoundError, version

from reckon._binary import binary
from reckon._run import Run
from reckon._train import Training, TrainingError, train

try:
    __version__ = version("reckon-rl")
except PackageNotFoundError:  # read from a source tree
    __version__ = "0"

__all__ = ["Run", "Training", "TrainingError", "binary", "train"]
