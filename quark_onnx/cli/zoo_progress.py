"""What a zoo shows of itself while it runs: a display on a terminal, a line for each model that is done elsewhere."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from quark_onnx.cli.console import err, say
from quark_onnx.engine.result_wording import classes_text, decibels_text
from quark_onnx.progress.stage_steps import STAGES
from quark_onnx.progress.terminal_line import spinner
from quark_onnx.zoo import Event, Outcome

MORE_STAGES = {
    "hash": "reading its files",
    "start": "starting",
    "report": "measuring for the report",
    "done": "finishing",
}
"""Stages of a zoo beside those of a quantization."""


def summary(outcome: Outcome) -> str:
    """A model in a few words."""
    row = outcome.row
    if not row.good:
        return f"{row.stage}: {row.reason}"
    figures = [row.preset, "" if row.least_sqnr is None else decibels_text(row.least_sqnr)]
    figures.append(classes_text(row.classes))
    figures.append("" if row.drop is None else f"{row.scores['float']:.4g} → {row.scores['quantized']:.4g}")
    figures.append("as before" if outcome.kept else f"{outcome.cost.seconds:.1f} s")
    return ", ".join(figure for figure in figures if figure)


class Lines:
    """A line for every model that is done. Events come from several threads."""

    def __init__(self, console: Console) -> None:
        self.console, self.lock = console, threading.Lock()
        self.done = self.total = 0

    def __call__(self, event: Event) -> None:
        """Show what happened."""
        with self.lock:
            if event.state == "start":
                self.total = event.total or 0
            elif event.outcome is not None:
                self.done += 1
                head = f"[{self.done}/{self.total}] {event.name}: {event.state}"
                say(f"{head} ({summary(event.outcome)})", to=self.console)


class _Summary(ProgressColumn):
    """A column that only the line of all models has."""

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__()
        self.column = column

    def render(self, task: Task) -> RenderableType:
        return Text() if task.total is None else self.column.render(task)


class _Left(ProgressColumn):
    """The time for the models that are left, at the pace of those that this run made; earlier results cost nothing."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        made = task.fields.get("made", 0)
        if not made or task.total is None or task.elapsed is None:
            return Text()
        return Text(f"{timedelta(seconds=round(task.elapsed / made * task.remaining))} left", "progress.remaining")


class Live:
    """A line with a bar for all models, and below it those that are being converted."""

    def __init__(self, display: Progress) -> None:
        self.display, self.lock = display, threading.Lock()
        self.counts: Counter[str] = Counter()
        self.made = 0
        self.all: TaskID | None = None
        self.running: dict[str, TaskID] = {}
        self.over: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Show what happened."""
        with self.lock:
            if event.state == "start":
                self.all = self.display.add_task("all models", total=event.total, note="", made=0)
            elif event.outcome is not None:
                self._done(event, event.outcome)
            elif event.name not in self.over:  # what a model told last may come after its outcome
                self._running(event)

    def _running(self, event: Event) -> None:
        if event.name not in self.running:
            self.running[event.name] = self.display.add_task(f"  {event.name}", total=None, note="")
            self._count()
        stage = STAGES.get(event.stage) or MORE_STAGES.get(event.stage, event.stage)
        steps = f" {event.done}/{event.total}" if event.total else ""
        self.display.update(self.running[event.name], note=f"{stage}{steps}")

    def _done(self, event: Event, outcome: Outcome) -> None:
        self.over.add(event.name)
        if event.name in self.running:
            self.display.remove_task(self.running.pop(event.name))
        self.counts[event.state] += 1
        self.made += not outcome.kept
        if not outcome.row.good:
            head = (f"{event.state}:", "bold red")
            say(f" {event.name}: {summary(outcome)}", head, to=self.display.console)
        self._count()

    def _count(self) -> None:
        assert self.all is not None
        done = self.counts.total()
        parts = [f"{len(self.running)} running", *(f"{count} {state}" for state, count in self.counts.items())]
        self.display.update(self.all, completed=done, made=self.made, note=", ".join(parts))


@contextlib.contextmanager
def shown(*, quiet: bool) -> Iterator[Live | Lines | None]:
    """What `convert_zoo` is to tell, on stderr; None if nobody wants to hear."""
    if quiet:
        yield None
    elif not err.is_terminal:
        yield Lines(err)
    else:
        what, note = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[note]}", markup=False)
        bar, count = _Summary(BarColumn(16)), _Summary(MofNCompleteColumn())
        columns = (spinner(err), what, bar, count, TimeElapsedColumn(), _Left(), note)
        with Progress(*columns, console=err, transient=True) as display:
            yield Live(display)
