"""The verifiers, in Rust."""

from os import PathLike
from typing import Any, Iterable, Literal, Mapping, Optional, Sequence, Union, final

from reckon.rewards.errors import ExampleError

__all__ = ["Rubric", "Score", "Verdict", "Verifier", "kinds", "parse_sets", "set_helper"]

_Outcome = Literal["pass", "fail", "unparsed", "truncated", "timeout", "crash", "skipped", "error"]
_Answer = Union[str, int, float, Sequence[Union[str, int, float]], None]

@final
class Verdict:
    """What a verifier says of one completion. Two of the same parts are equal; it can be pickled."""

    def __new__(cls, reward: float, outcome: _Outcome, parsed: Optional[str] = None, reason: str = "") -> Verdict: ...
    @property
    def reward(self) -> float:
        """0 for a wrong or malformed completion, 1 for a right one. Means nothing where `judged` is None."""
    @property
    def outcome(self) -> _Outcome:
        """How it came about."""
    @property
    def parsed(self) -> Optional[str]:
        """What was judged, where something could be read from the completion."""
    @property
    def reason(self) -> str:
        """Why, in a few lower-case words."""
    @property
    def passed(self) -> bool:
        """Whether the outcome is `pass`."""
    @property
    def judged(self) -> Optional[float]:
        """The reward, or None where the completion was not judged (`skipped`, `error`)."""
    def as_dict(self) -> dict[str, Any]: ...
    def to_json(self) -> str:
        """The line that `reckon verify score --json` prints."""

@final
class Score:
    """What a rubric says of one completion."""

    def __new__(cls, total: Optional[float], parts: Sequence[tuple[str, Verdict]]) -> Score: ...
    @property
    def total(self) -> Optional[float]:
        """The reward; None where the completion is not judged."""
    @property
    def parts(self) -> dict[str, Verdict]:
        """The verdict of each verifier, by its name, in order."""

@final
class Verifier:
    """One verifier, by its kind; the options are those of a config's `[[rubric.verifiers]]`.

    Columns of a row beside the answer and the completion are keyword arguments: `numbers` and `target` for
    `countdown`, `tests` for `code`. `question`, `id`, `tokens` (ids of the sampled tokens), `truncated` (whether a
    limit cut the completion) and `rewards` (what tools gave for its calls, in order) are known to every kind.
    """

    def __new__(cls, kind: str, /, **options: Any) -> Verifier: ...
    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    def score(self, answer: _Answer, completion: str, **columns: Any) -> Verdict:
        """The verdict of one completion. A list of answers is one of which any will do."""
    def score_batch(
        self, answers: Iterable[_Answer], completions: Iterable[str], **columns: Iterable[Any]
    ) -> list[Verdict]:
        """A verdict for each completion, on all cores. Every argument is a sequence with one value for each."""
    def score_rows(self, rows: Iterable[Mapping[str, Any]]) -> list[Union[Verdict, ExampleError]]:
        """A verdict for each row, a dict with `answer`, `completion` and further columns. A row that cannot be judged
        gets an exception in its place, which is returned and not raised."""
    def score_file(self, path: Union[str, PathLike[str]]) -> list[Union[Verdict, ExampleError]]:
        """The same of a file of JSON Lines, JSON, CSV or Parquet, plain or compressed."""

@final
class Rubric:
    """Several verifiers, and how their verdicts become one reward.

    In mode `binary` the total is 1 where every required part of positive weight passes, else 0; in mode `sum` it is the
    weighted sum. A part is the name of a kind, or a dict of `kind`, `name`, `weight`, `required` and its options.
    """

    def __new__(
        cls,
        verifiers: Iterable[Union[str, Mapping[str, Any]]],
        mode: Literal["binary", "sum"] = "binary",
        max_error_share: float = 0.5,
    ) -> Rubric: ...
    @staticmethod
    def from_config(path: Union[str, PathLike[str]]) -> Rubric:
        """The `[rubric]` of a config of `reckon train`."""
    @property
    def names(self) -> list[str]: ...
    def score(self, answer: _Answer, completion: str, **columns: Any) -> Score:
        """What it says of one completion; the arguments are those of `Verifier.score`."""
    def score_batch(
        self, answers: Iterable[_Answer], completions: Iterable[str], **columns: Iterable[Any]
    ) -> list[Score]:
        """A score for each completion, on all cores."""
    def score_rows(self, rows: Iterable[Mapping[str, Any]]) -> list[Union[Score, ExampleError]]:
        """A score for each row, or an exception in its place."""
    def score_file(self, path: Union[str, PathLike[str]]) -> list[Union[Score, ExampleError]]:
        """The same of a file."""

def kinds() -> list[str]:
    """Every kind of verifier."""

def set_helper(program: Union[str, PathLike[str]]) -> None:
    """Names the binary that runs programs in a sandbox; the first call counts."""

def parse_sets(sets: Sequence[str]) -> dict[str, Any]:
    """Options given as KEY=VALUE, where the value is TOML, or text where it is not."""
