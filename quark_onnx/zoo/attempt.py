"""What comes of the ways to a model of a zoo: one that was tried and judged, and what is told of all that were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from quark_onnx.optimize import Optimized
from quark_onnx.result import Result
from quark_onnx.zoo.entry import Try

MODEL = "model_int8.onnx"


class Told(Protocol):
    """Told of progress; `stage` is the last stage it was told of."""

    stage: str

    def __call__(self, stage: str, done: int, total: int | None) -> None: ...

    def write(self, **values: Any) -> None:
        """Note values beside the stage."""


@dataclass(frozen=True, eq=False)
class Attempt:
    """A configuration that was tried: its model lies in `folder`.

    score    of the evaluator; None: there is none
    over     what exceeds the budget, in words; empty: it is met
    way_out  what to do about that
    search   that found it; None: it was asked for by name
    """

    tried: Try
    folder: Path
    result: Result
    score: float | None
    over: tuple[str, ...]
    way_out: str
    search: Optimized | None = None


@dataclass(frozen=True)
class Failure:
    """A configuration that could not be used, and in which stage."""

    tried: Try
    stage: str
    error: str


@dataclass(frozen=True, eq=False)
class Found:
    """What came of a model.

    best     the attempt that counts, or if there is none, the first failure
    records  what the row says of each configuration that was tried
    before   score of the float model; None: there is no evaluator
    """

    best: Attempt | Failure
    records: Sequence[Mapping[str, Any]]
    before: float | None = None

    @property
    def scores(self) -> dict[str, float]:
        """What the row says of scores."""
        after = self.best.score if isinstance(self.best, Attempt) else None
        return {name: value for name, value in (("float", self.before), ("quantized", after)) if value is not None}


def record(
    name: str,
    *,
    sqnr: float | None,
    agreement: float | None,
    kl: float | None,
    score: float | None,
    drop: float | None,
    size: int,
    within_budget: bool,
) -> dict[str, Any]:
    """What a row says of a configuration that gave a model."""
    figures = {"sqnr": sqnr, "agreement": agreement, "kl": kl, "score": score, "drop": drop, "size": size}
    return {"preset": name, **figures, "within_budget": within_budget}
