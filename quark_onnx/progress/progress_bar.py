"""The progress that users pass, and the one they get where they pass none: a bar in notebooks, elsewhere nothing.

rich and IPython are imported when there is something to draw.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from types import TracebackType

from quark_onnx.clock import Progress, unseen
from quark_onnx.progress.notebook_bar import in_notebook, notebook_bar
from quark_onnx.progress.warnings_once import warnings_once


class ProgressBar:
    """A bar in a notebook, a line on a terminal (stderr), and nothing where neither is there.

    Who runs something enters it for that time, so it may be used again: `with progress_bar() as tell:`. Entered once
    more meanwhile, it goes on as it is: several runs have one bar, and so have a run and those inside of it.
    """

    def __init__(self) -> None:
        self._tell: Progress = unseen
        self._open = ExitStack()
        self._entered = 0

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        self._tell(stage, done, total)

    def __enter__(self) -> ProgressBar:
        if not self._entered:
            self._tell = self._open.enter_context(_drawn())
        self._entered += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered -= 1
        if not self._entered:
            self._tell = unseen
            self._open.__exit__(kind, error, trace)


def progress_bar() -> ProgressBar:
    """For `progress=` of `ModelQuantizer` and `optimize`: shows the stage, how far it is, and how long it will take."""
    return ProgressBar()


@contextmanager
def followed(progress: Progress | None) -> Iterator[Progress]:
    """Whom a run tells: `progress`, entered where it can be; None is a bar in notebooks and nobody elsewhere.

    For that time no warning is logged twice.
    """
    chosen = (ProgressBar() if in_notebook() else unseen) if progress is None else progress
    with chosen if isinstance(chosen, AbstractContextManager) else nullcontext(), warnings_once():
        yield chosen


@contextmanager
def _drawn() -> Iterator[Progress]:
    if in_notebook():
        with notebook_bar() as tell:
            yield tell
    elif sys.stderr is not None and sys.stderr.isatty() and (sys.stderr.encoding or "").lower().startswith("utf"):
        from rich.console import Console

        from quark_onnx.progress.terminal_line import terminal_line

        with terminal_line(Console(stderr=True)) as tell:
            yield tell
    else:
        yield unseen
