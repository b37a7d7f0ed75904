"""What a run of a zoo tells while it goes on, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quark_onnx.core.shown.card import GOOD, LOOK, Card, Shown, Tile
from quark_onnx.core.shown.figures import NOTHING, seconds, size
from quark_onnx.core.shown.tables import ROWS, table
from quark_onnx.engine.result_wording import decibels_text
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


@dataclass(frozen=True, repr=False)
class ZooResult(Shown):
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

    def _card(self) -> Card:
        good, bad = self.good, self.bad
        tiles = [
            Tile("Good", f"{len(good):,} of {len(self.outcomes):,}", "models", "" if bad else "good"),
            Tile("Time", seconds(sum(outcome.cost.seconds for outcome in self.outcomes)), "of all processes"),
        ]
        columns = ("Model", "Became", "SQNR", "Size of weights", "Why")
        rows = [_cells(outcome) for outcome in (*bad, *good)[:ROWS]]
        models = table("Models, those to look at first", columns, rows, len(self.outcomes), numbers=columns[2:4])
        summary = f"{len(bad):,} to look at" if bad else ""
        ended = "interrupted" if self.interrupted else ""
        said = ", ".join(text for text in (summary, ended) if text)
        sound = bool(good) and not bad and not self.interrupted
        title = f"Zoo, {self.output}"
        return Card(title, GOOD if sound else LOOK, said, tiles, (models,), "good" if sound else "poor")


def _cells(outcome: Outcome) -> tuple[str, ...]:
    row = outcome.row
    sqnr = NOTHING if row.least_sqnr is None else decibels_text(row.least_sqnr)
    return (row.name, f"{row.status}: {row.preset}".rstrip(": "), sqnr, size(row.bytes.get("quantized")), row.reason)
