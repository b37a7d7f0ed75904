"""What the commands say: results on stdout; progress, warnings and errors on stderr.

Names are the model's or the file system's, and may hold anything. A `str` that is shown is one line, whatever is in it;
several lines are a `Text` of `lines`. What a terminal would act on is written as an escape, and what the console's
encoding has no character for is written with others.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from quark_onnx.clock import Progress as Told
from quark_onnx.clock import unseen
from quark_onnx.core.json_writing import json_text
from quark_onnx.core.visible_text import json_escape, python_escape, visible
from quark_onnx.progress.terminal_line import terminal_line

logger = logging.getLogger("quark_onnx")

PLAIN = {"→": "->", "…": "...", "−": "-", "–": "-", "×": "x", "·": "*", "≥": ">=", "≤": "<=", "µ": "u", "²": "^2"}
"""What the commands say beyond ASCII, for consoles that have no such characters."""

ENCODABLE = "quark_onnx.plain"
"""An error handler of encodings: other characters in place of those that an encoding has not."""


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    return "".join(PLAIN.get(one) or python_escape(one) for one in missing), error.end


codecs.register_error(ENCODABLE, _plain)


class SafeConsole(Console):
    """A console whose texts cannot steer the terminal."""

    def render_str(self, text: str, **how: Any) -> Text:
        """What is shown of a string: known before columns are measured."""
        return super().render_str(visible(text).encode(self.encoding, ENCODABLE).decode(self.encoding), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is written at last, of a `Text`, too; control codes are the console's own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text, keep="\n"), segment.style)


out = SafeConsole(highlight=False, markup=False, emoji=False)
err = SafeConsole(highlight=False, markup=False, emoji=False, stderr=True)


def encode_anything() -> None:
    """Have stdout and stderr write all characters in some way, whatever their encoding: no word ends a command."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # there is none, or one of a notebook
            stream.reconfigure(errors=ENCODABLE)  # type: ignore[union-attr]


def lines(texts: Iterable[str]) -> Text:
    """A line for each text."""
    return Text("\n".join(map(visible, texts)))


def say(text: str, *styled: tuple[str, str], to: Console = out) -> None:
    """A line; only the terminal breaks it. `styled`: what it begins with, and in which style."""
    to.print(Text.assemble(*styled, visible(text)), soft_wrap=True)


def message(kind: str, text: str, style: str) -> None:
    """One line on stderr that begins with `kind:`, and those that belong to it, two spaces further in."""
    first, *more = re.split(r"\n(?=  )", text)
    say(f" {first}", (f"{kind}:", style), to=err)
    for line in more:
        say(line, to=err)


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


@contextlib.contextmanager
def warnings_withheld() -> Iterator[None]:
    """Warnings of what is only tried are nobody's concern."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def progress(*, quiet: bool) -> Iterator[Told]:
    """A line on stderr that shows the stage and how far it is, and vanishes in the end; nothing without a terminal."""
    if quiet or not err.is_terminal:
        yield unseen
        return
    with terminal_line(err) as tell:
        yield tell


def print_json(document: Any) -> None:
    """The document on stdout, the same text wherever it goes: never wrapped or coloured, and JSON in any encoding."""
    text, encoding = json_text(document), sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = "".join(one if one.isascii() else json_escape(one) for one in text)
    print(text)
