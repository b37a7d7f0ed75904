"""What a run of a zoo tells while it goes on, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quark_onnx.zoo.rows import Outcome


@dataclass(frozen=True)
class Event:
    """Something that happened.

    name     of the model; empty for the run as a whole
    state    start, running, or the status of a row
    stage    where the model is: hash, prepare, calibrate, …
    done     steps of the stage, out of `total` where that is known; at the start, `total` counts the models
    slots    at the start: models that are converted at a time
    outcome  of a model that is done
    """

    name: str
    state: str
    stage: str = ""
    done: int = 0
    total: int | None = None
    slots: int = 0
    outcome: Outcome | None = None


Told = Callable[[Event], None]


def unheard(event: Event) -> None:
    """The default: nobody listens."""


@dataclass(frozen=True)
class ZooResult:
    """What became of a zoo.

    output       its folder
    outcomes     one for each model, in the order of the manifest
    interrupted  whether Ctrl-C ended the run
    """

    output: Path
    outcomes: tuple[Outcome, ...]
    interrupted: bool = False

    @property
    def good(self) -> tuple[Outcome, ...]:
        """Models that were quantized within their budget."""
        return tuple(outcome for outcome in self.outcomes if outcome.row.good)

    @property
    def bad(self) -> tuple[Outcome, ...]:
        """All others: failed, over budget, stopped."""
        return tuple(outcome for outcome in self.outcomes if not outcome.row.good)
