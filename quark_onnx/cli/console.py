"""What the commands say: results on stdout; progress, warnings and errors on stderr."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from quark_onnx.cli.progress_line import Line, display
from quark_onnx.core.json_writing import json_text
from quark_onnx.job import Progress as Told

logger = logging.getLogger("quark_onnx")
out = Console(highlight=False, markup=False)
err = Console(highlight=False, markup=False, stderr=True)


def message(kind: str, text: str, style: str) -> None:
    """One line on stderr that begins with `kind:`; only the terminal breaks it."""
    err.print(Text.assemble((f"{kind}:", style), " ", text), soft_wrap=True)


def warn(warnings: Iterable[str]) -> None:
    """Hand warnings to the log, which shows each once."""
    for warning in warnings:
        logger.warning(warning)


class _OnStderr(logging.Handler):
    """Each log message once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self.seen:
            self.seen.add(text)
            message("warning", text, "bold yellow")


@contextlib.contextmanager
def warnings_shown() -> Iterator[None]:
    """The package's warnings go to stderr, in the style of the errors."""
    handler = _OnStderr()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _untold(stage: str, done: int, total: int | None) -> None:
    """Progress that nobody sees."""


@contextlib.contextmanager
def progress(*, quiet: bool) -> Iterator[Told]:
    """A line on stderr that shows the stage and how far it is, and vanishes in the end; nothing without a terminal."""
    if quiet or not err.is_terminal:
        yield _untold
        return
    with display(err) as shown:
        yield Line(shown).tell


def print_json(document: Any) -> None:
    """The document on stdout, the same bytes wherever it goes: never wrapped or coloured."""
    print(json_text(document))
