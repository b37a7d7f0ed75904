"""What a search shows of itself while it runs: some lines on a terminal, a line for each better point elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import Progress

from quark_onnx.cli.console import err, say
from quark_onnx.cli.tables import facts
from quark_onnx.core.shown.figures import seconds, size
from quark_onnx.optimize import Point, Trial
from quark_onnx.progress.stage_steps import TRIAL
from quark_onnx.progress.terminal_line import Line, display
from quark_onnx.report.search_wording import figures


def worth(point: Point) -> str:
    """`318 kB, KL 0.094, same arg-max 97.65%, 12.3 dB, 97% on integers`."""
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


class Screen(Silent):
    """The trial and the time that is left, the best so far, and below it what the trial is doing."""

    def __init__(self, stages: Progress) -> None:
        self.stages, self.line = stages, Line(stages)
        self.trial = Trial(0, "preparing the search")
        self.end: float | None = None

    def tell(self, stage: str, done: int, total: int | None) -> None:
        """Progress within a trial; the trial itself stands above."""
        if not stage.startswith(f"{TRIAL} "):
            self.line.tell(stage, done, total)

    def told(self, trial: Trial) -> None:
        """A trial begins, or the best has changed."""
        self.trial = trial
        self.end = None if trial.left is None else time.monotonic() + trial.left

    def __rich__(self) -> RenderableType:
        trial, best = self.trial, self.trial.best
        name = f"trial {trial.number}: {trial.name}" if trial.number else trial.name
        left = "" if self.end is None else f"{seconds(max(0.0, self.end - time.monotonic()))} left"
        rows = {"Search": ", ".join(text for text in (name, left) if text)}
        return Group(facts(rows | {"Best so far": worth(best) if best else ""}), self.stages)


@contextlib.contextmanager
def searching(*, quiet: bool) -> Iterator[Silent]:
    """What `optimize` is to tell, on stderr; what it shows of itself on a terminal vanishes in the end."""
    if quiet:
        yield Silent()
    elif not err.is_terminal:
        yield Lines(err)
    else:
        screen = Screen(display(err))
        with Live(screen, console=err, transient=True, refresh_per_second=8):
            yield screen
