"""A run of the trainer: the binary is started, and its records come as it writes them."""

from __future__ import annotations

import atexit
import json
import signal
import subprocess
import tempfile
import time
from os import PathLike
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional, Union

from reckon import _toml
from reckon._binary import binary
from reckon._run import Record, Run

# Seconds between two looks at what the run has written.
POLL = 0.05
Config = Union[Mapping[str, Any], str, PathLike[str], None]


class TrainingError(RuntimeError):
    """The binary ended with an error; the message is what it said."""


def train(
    config: Config = None,
    *,
    out: Union[str, PathLike[str], None] = None,
    overrides: Optional[Mapping[str, Any]] = None,
    resume: Union[str, PathLike[str], None] = None,
    verbose: bool = False,
) -> Training:
    """Starts a run of `reckon train`, and gives the record of each step as it comes.

        for record in reckon.train("config.toml", out="runs/mine", overrides={"optim.lr": 1e-4}):
            print(record["step"], record["reward/mean"])

    `config` is a path, a dict with the keys of docs/config.md, or None for the run that is embedded in the binary.
    `out` is the folder of the run, new or empty; `resume` goes on with one instead. `verbose` lets the binary print.
    Paths in a config are looked up from the current folder. Ctrl-C (an interrupt of a notebook too) lets the step end,
    saves a checkpoint, and raises KeyboardInterrupt. The run also ends so when this process does.
    """
    if resume is not None and (config is not None or out is not None):
        raise ValueError("a run that is resumed has its own config and folder: leave out `config` and `out`")
    command = [str(binary()), "train"]
    text = _toml.dumps(config) if isinstance(config, Mapping) else None
    if config is not None and text is None:
        command.append(str(config))
    folder = Path(resume if resume is not None else out if out is not None else "runs/countdown")
    command += ["--resume" if resume is not None else "--out", str(folder)]
    for key, value in (overrides or {}).items():
        command += ["--set", f"{key}={_toml.value(value)}"]
    return Training(command, folder, text, verbose)


class Training:
    """A run that goes on: an iterator over its records. As a context manager it stops the run when left."""

    def __init__(self, command: list[str], folder: Path, config: Optional[str], verbose: bool) -> None:
        self.folder = folder
        checkpoints = Run(folder).checkpoints if (folder / "config.toml").is_file() else {}
        self._last = max(checkpoints, default=0)
        self._log = tempfile.NamedTemporaryFile()
        self._config = None
        if config is not None:
            self._config = tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8")
            self._config.write(config)
            self._config.flush()
            command = [*command[:2], self._config.name, *command[2:]]
        output = None if verbose else self._log
        # In a session of its own, so that Ctrl-C in a terminal comes by way of this process, once.
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        self._offset, self._inode = 0, 0
        self._records = self._follow()
        atexit.register(self._interrupt)

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        try:
            return next(self._records)
        except KeyboardInterrupt:
            self.stop()
            raise

    @property
    def run(self) -> Run:
        """What the run has left on disk so far."""
        return Run(self.folder)

    @property
    def running(self) -> bool:
        """Whether the binary still works."""
        return self._process.poll() is None

    def wait(self) -> Run:
        """Waits for the end of the run."""
        for _ in self:
            pass
        return self.run

    def stop(self) -> None:
        """Lets the step end, saves a checkpoint, and waits for both."""
        self._interrupt()
        while True:
            try:
                self._process.wait()
                break
            except KeyboardInterrupt:
                continue  # it is saving already; a checkpoint that is cut would be lost

    @property
    def output(self) -> str:
        """What the binary printed, unless `verbose` let it pass."""
        # Opened anew: the binary writes where this process would have moved to.
        return Path(self._log.name).read_text(encoding="utf-8", errors="replace")

    def _interrupt(self) -> None:
        atexit.unregister(self._interrupt)
        if self.running:
            self._process.send_signal(signal.SIGINT)

    def _follow(self) -> Iterator[Record]:
        while True:
            over = not self.running
            yield from self._new()
            if over:
                break
            time.sleep(POLL)
        atexit.unregister(self._interrupt)
        if self._process.returncode != 0:
            lines = self.output.strip().splitlines() or ["it said nothing"]
            raise TrainingError(f"reckon train ended with code {self._process.returncode}: {lines[-1]}")

    def _new(self) -> Iterator[Record]:
        """Records that were written since the last look."""
        path = self.folder / "metrics.jsonl"
        if not path.is_file():
            return
        stat = path.stat()
        if stat.st_ino != self._inode or stat.st_size < self._offset:
            # A run that is resumed writes the file anew.
            self._inode, self._offset = stat.st_ino, 0
        with path.open("rb") as file:
            file.seek(self._offset)
            lines = [line for line in file if line.endswith(b"\n")]
        self._offset += sum(map(len, lines))
        for record in map(json.loads, lines):
            if record["step"] > self._last:
                self._last = record["step"]
                yield record

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
