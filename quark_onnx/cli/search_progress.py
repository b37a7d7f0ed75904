"""What a search shows of itself while it runs: two lines on a terminal, a line for each better point elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import Progress

from quark_onnx.cli.console import err, say
from quark_onnx.cli.progress_line import Line, display
from quark_onnx.optimize import Point, Trial
from quark_onnx.report.search_wording import figures
from quark_onnx.report.wording import seconds, size


def worth(point: Point) -> str:
    """`318 kB, KL 0.094, same arg-max 97.65%`, and whether it is within the budget."""
    return ", ".join(text for text in (size(point.size), figures(point)) if text)


def _is_better(trial: Trial) -> bool:
    """Whether it is told because the best has changed, not because a trial begins."""
    return trial.best is not None and trial.best.number == trial.number


class Silent:
    """Nobody wants to hear."""

    def tell(self, stage: str, done: int, total: int | None) -> None:
        """Progress within a trial."""

    def told(self, trial: Trial) -> None:
        """A trial begins, or the best has changed."""


class Lines(Silent):
    """A line for every point that is the best so far."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def told(self, trial: Trial) -> None:
        """A trial begins, or the best has changed."""
        if trial.best is not None and _is_better(trial):
            say(f"[{trial.number}] {trial.name}: {worth(trial.best)}", to=self.console)


class Live(Silent):
    """A line for the search, with the best so far and the time that is left; below it what the trial is doing."""

    def __init__(self, display: Progress) -> None:
        self.display = display
        self.all = display.add_task("searching", total=None, count="", note="", left="")
        self.line = Line(display)
        self.end: float | None = None

    def tell(self, stage: str, done: int, total: int | None) -> None:
        """Progress within a trial."""
        if self.end is not None:
            self.display.update(self.all, left=f"{seconds(max(0.0, self.end - time.monotonic()))} left")
        self.line.tell(stage, done, total)

    def told(self, trial: Trial) -> None:
        """A trial begins, or the best has changed."""
        self.end = None if trial.left is None else time.monotonic() + trial.left
        best = "" if trial.best is None else f"best so far {worth(trial.best)}"
        self.display.update(self.all, description=f"trial {trial.number}: {trial.name}", note=best)
        self.display.refresh()


@contextlib.contextmanager
def searching(*, quiet: bool) -> Iterator[Silent]:
    """What `optimize` is to tell, on stderr."""
    if quiet:
        yield Silent()
    elif not err.is_terminal:
        yield Lines(err)
    else:
        with display(err) as shown:
            yield Live(shown)
