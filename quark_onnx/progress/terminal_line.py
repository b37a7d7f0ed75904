"""The line that shows progress on a terminal: the stage, its layer, how far it is, and how long it will take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from quark_onnx.clock import Progress as Told
from quark_onnx.progress.stage_steps import Step

DAY = 86400.0
"""The time that is left is estimated from all steps of a stage, however long one takes."""

BESIDE = 76
"""Columns of the terminal that all but the name of a layer may take."""


class _Left(TimeRemainingColumn):
    """`0:01:10 left`, where it can be told; as the stage tells it, where it does."""

    def render(self, task: Task) -> Text:
        if task.fields["left"]:
            return Text(task.fields["left"])
        known = task.total is not None and task.time_remaining is not None
        return super().render(task).append(" left") if known else Text()


def spinner(console: Console) -> SpinnerColumn:
    """A sign of life that the console's encoding has."""
    return SpinnerColumn("dots" if console.encoding.startswith("utf") else "line")


def display(console: Console) -> Progress:
    """The display, which vanishes in the end."""
    fields = ("{task.description}", "{task.fields[count]}", "{task.fields[note]}")
    what, count, note = (TextColumn(field, markup=False) for field in fields)  # a name may hold brackets
    columns = (spinner(console), what, BarColumn(12), count, TimeElapsedColumn(), _Left(), note)
    return Progress(*columns, console=console, transient=True, speed_estimate_period=DAY)


class Line:
    """The one task of the display. It begins anew with every stage, so that times are those of the stage."""

    def __init__(self, display: Progress) -> None:
        self.display = display
        self.step, self.text = Step(), ""
        self.task: TaskID | None = None

    def tell(self, stage: str, done: int, total: int | None) -> None:
        """Progress, see `Step.after`."""
        before, self.step = self.step, self.step.after(stage, done, total)
        step = self.step
        task = self._begin() if self.task is None or step.stage != before.stage else self.task
        text = f"{step.title} {_end(step.layer, max(12, self.display.console.width - BESIDE))}".rstrip()
        self.display.update(task, description=text, completed=done, total=total)
        self.display.update(task, count=step.count, note=step.note, left=step.left)
        if text != self.text or step.ended:  # a short stage is seen as well
            self.text = text
            self.display.refresh()

    def _begin(self) -> TaskID:
        if self.task is not None:
            self.display.remove_task(self.task)
        self.task = self.display.add_task(self.step.title, total=None, count="", note="", left="")
        return self.task


@contextmanager
def terminal_line(console: Console) -> Iterator[Told]:
    """The line while a run goes on; it vanishes in the end."""
    with display(console) as shown:
        yield Line(shown).tell


def _end(text: str, room: int) -> str:
    """The end of a text, where names of layers differ."""
    return text if len(text) <= room else f"…{text[1 - room :]}"
