"""The line that shows progress on a terminal: the stage, its layer, how far it is, and how long it will take."""

from __future__ import annotations

import re

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

from quark_onnx.core.visible_text import visible

STAGES = {
    "prepare": "preparing the float model",
    "read": "reading the data",
    "equalize": "equalizing channels",
    "verify": "checking that preparing changed nothing",
    "calibrate": "calibrating",
    "moments": "measuring what layers read",
    "ranges": "choosing ranges",
    "smooth": "smoothing activations",
    "protect": "looking for what 8 bits would ruin",
    "tune": "fine-tuning",
    "apply": "writing quantizers into the graph",
    "prove": "proving the result in onnxruntime",
    "write": "writing the model",
    "layers": "measuring every layer",
    "compare": "running both models",
    "evaluate": "evaluating",
    "judge": "judging",
    "latency": "measuring latency",
    "report": "measuring for the report",
}
"""Stages in words; one that is not listed is called by its name."""


DAY = 86400.0
"""The time that is left is estimated from all steps of a stage, however long one takes."""

BESIDE = 76
"""Columns of the terminal that all but the name of a layer may take."""

LEFT = re.compile(r"(.*), (about \d+ (?:s|min) left)", re.DOTALL)
"""What fine-tuning tells at the begin of a layer: its name, and how long all that is left will take."""

DONE = re.compile(r"(.*): (\S+ → \S+ dB) \(\w+\)", re.DOTALL)
"""What fine-tuning tells of a layer that is done: its name, and its SQNR before and after."""


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
        self.stage = self.text = self.note = self.left = ""
        self.task: TaskID | None = None

    def tell(self, stage: str, done: int, total: int | None) -> None:
        """Progress: `stage` is the name of a stage, or `tune ` and what is told of a layer when it begins and ends."""
        name, _, layer = visible(stage).partition(" ")
        task = self._begin(name) if self.task is None or name != self.stage else self.task
        finished = DONE.fullmatch(layer)
        if finished:
            layer, self.note = finished[1], f"last {finished[2]}"
        elif left := LEFT.fullmatch(layer):
            layer, self.left = left[1], left[2]
        else:
            self.left = ""
        text = f"{STAGES.get(name, name)} {_end(layer, max(12, self.display.console.width - BESIDE))}".rstrip()
        count = f"{done}/{total}" if total is not None else str(done or "")
        self.display.update(task, description=text, completed=done, total=total, count=count)
        self.display.update(task, note=self.note, left=self.left)
        if text != self.text or finished:  # a short stage is seen as well
            self.text = text
            self.display.refresh()

    def _begin(self, stage: str) -> TaskID:
        if self.task is not None:
            self.display.remove_task(self.task)
        self.stage, self.note, self.left = stage, "", ""
        self.task = self.display.add_task(STAGES.get(stage, stage), total=None, count="", note="", left="")
        return self.task


def _end(text: str, room: int) -> str:
    """The end of a text, where names of layers differ."""
    return text if len(text) <= room else f"…{text[1 - room :]}"
