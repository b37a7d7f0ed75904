"""The bar in a notebook: one output of the cell, drawn anew as a run goes on.

It is what IPython displays, without widgets and scripts, so it shows in every front end and stays readable in a saved
notebook: in the end it says how long the run took, or where it stopped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from quark_onnx.clock import Progress
from quark_onnx.core.shown.charts import meter
from quark_onnx.core.shown.figures import seconds
from quark_onnx.core.shown.markup import Html, tag
from quark_onnx.core.shown.style import STYLE
from quark_onnx.progress.stage_steps import Step

PAUSE = 0.25
"""Seconds between two drawings of the same stage, at least: a notebook keeps up with no more."""

Drawn = Callable[[str, str], None]
"""Shows a text, and the same as HTML, in place of what it showed before."""


def in_notebook() -> bool:
    """Whether a kernel runs this: Jupyter, VS Code, Colab; not IPython on a terminal."""
    module = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return getattr(shell, "kernel", None) is not None


@contextmanager
def notebook_bar() -> Iterator[Progress]:
    """The bar, while a run goes on."""
    bar = NotebookBar(_output())
    try:
        yield bar
    except BaseException:
        bar.end(done=False)
        raise
    bar.end(done=True)


class NotebookBar:
    """Tells a drawing where the run is: at once of a new stage, otherwise a few times a second."""

    def __init__(self, draw: Drawn, now: Callable[[], float] = time.monotonic) -> None:
        self.draw, self.now = draw, now
        self.step = Step()
        self.begun = self.stage_begun = now()
        self.drawn = -PAUSE

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        before, self.step, moment = self.step, self.step.after(stage, done, total), self.now()
        fresh = self.step.stage != before.stage
        self.stage_begun = moment if fresh else self.stage_begun
        if fresh or moment - self.drawn >= PAUSE:
            self.drawn = moment
            share = self.step.done / self.step.total if self.step.total else 0.0
            self._show(self._words(moment), meter(share, "mark"))

    def end(self, *, done: bool) -> None:
        """The run is over."""
        took = seconds(self.now() - self.begun)
        where = " ".join(part for part in (self.step.title, self.step.layer, self.step.count) if part)
        self._show(f"done in {took}" if done else f"stopped after {took}, while {where or 'it began'}", Html())

    def _words(self, moment: float) -> str:
        step, since = self.step, moment - self.stage_begun
        left = step.left
        if not left and step.total and 0 < step.done < step.total:
            left = f"about {seconds(since / step.done * (step.total - step.done))} left"
        what = f"{step.title} {step.layer}".rstrip()
        return ", ".join(
            part for part in (what, step.count, seconds(since) if since >= 1 else "", left, step.note) if part
        )

    def _show(self, text: str, drawing: Html) -> None:
        self.draw(text, tag("div", STYLE, tag("p", text, class_="quiet"), drawing, class_="quark-onnx"))


def _output() -> Drawn:
    from IPython.display import display

    handle: list[Any] = []

    def draw(text: str, html: str) -> None:
        content = {"text/plain": text, "text/html": str(html)}
        if handle:
            handle[0].update(content, raw=True)
        else:
            handle.append(display(content, raw=True, display_id=True))

    return draw
