"""What a run left on disk: its config, metrics, rollouts and checkpoints. Nothing here changes the folder."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any, Iterator, Literal, Optional, Union

from reckon import _toml

Record = dict[str, Any]


class Run:
    """The folder of a run, as `reckon train --out` writes it; of a run that goes on, as far as it is."""

    def __init__(self, folder: Union[str, PathLike[str]]) -> None:
        self.folder = Path(folder)
        if not (self.folder / "config.toml").is_file():
            raise FileNotFoundError(f"{self.folder} holds no run: there is no config.toml in it")

    @property
    def config(self) -> dict[str, Any]:
        """Every key of the run with its value."""
        return _toml.loads((self.folder / "config.toml").read_text(encoding="utf-8"))

    @property
    def records(self) -> list[Record]:
        """One dict for each step: `step`, and the metrics that `reckon metrics` explains; step 0 has an evaluation."""
        path = self.folder / "metrics.jsonl"
        return list(whole_lines(path)) if path.is_file() else []

    def metrics(self, as_: Literal["list", "pandas", "polars"] = "list") -> Any:
        """The records as a list of dicts, or as a data frame with a row for each step."""
        if as_ == "list":
            return self.records
        if as_ == "pandas":
            import pandas

            return pandas.DataFrame(self.records)
        if as_ == "polars":
            import polars

            return polars.DataFrame(self.records, infer_schema_length=None)
        raise ValueError(f"metrics come as list, pandas or polars, not {as_!r}")

    @property
    def rollout_steps(self) -> list[int]:
        """Steps whose rollouts were kept."""
        return sorted(int(path.stem.split("-")[1]) for path in (self.folder / "rollouts").glob("step-*.jsonl"))

    def rollouts(self, step: Optional[int] = None) -> list[Record]:
        """A row for each completion of a step, or of all steps that were kept.

        `step`, `id`, `question`, `answer`, `sample`, `completion`, `reward`, `passed`, `advantage`, `truncated`,
        `tokens`, the `verdicts`, one dict for each verifier, and `info`, all columns of the row of data.
        """
        steps = self.rollout_steps if step is None else [step]
        missing = [one for one in steps if one not in self.rollout_steps]
        if missing:
            raise ValueError(f"{self.folder} holds no rollouts of step {missing[0]}: there are {self.rollout_steps}")
        files = (self.folder / "rollouts" / f"step-{one:06}.jsonl" for one in steps)
        return [row for file in files for group in whole_lines(file) for row in _rows(group)]

    @property
    def checkpoints(self) -> dict[int, Path]:
        """The folder of each checkpoint by its step; they load as models in transformers after `reckon export`."""
        found = (self.folder / "checkpoints").glob("step-*")
        return {int(path.name.split("-")[1]): path for path in sorted(found) if path.name[5:].isdigit()}

    @property
    def before(self) -> Optional[dict[str, Any]]:
        """The held-out evaluation before the first step."""
        return self._json("before.json")

    @property
    def after(self) -> Optional[dict[str, Any]]:
        """The held-out evaluation after the last step; None while the run goes on."""
        return self._json("after.json")

    def _json(self, name: str) -> Optional[dict[str, Any]]:
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"


def whole_lines(path: Path) -> Iterator[Record]:
    """The records of a file of JSON Lines, without a last line that is still being written."""
    with path.open("rb") as file:
        yield from (json.loads(line) for line in file if line.endswith(b"\n"))


def _rows(group: Record) -> Iterator[Record]:
    example = group["example"]
    for sample, rollout in enumerate(group["rollouts"]):
        row = {"step": group["step"], "id": example["id"], "question": example["question"]}
        row["answer"], row["sample"] = example["answer"], sample
        for name in ("completion", "reward", "passed", "advantage", "truncated", "tokens"):
            row[name] = rollout.get(name)
        row["rewards"] = rollout.get("rewards", [])
        row["verdicts"], row["info"] = rollout["score"]["parts"], example.get("info", {})
        yield row
