"""What the commands say: results on stdout; progress, warnings and errors on stderr."""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.filesize import decimal as size_text
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from quark_onnx.pipeline import Progress as Told

__all__ = ["db_text", "message", "new_table", "out", "print_json", "progress", "size_text", "warnings_shown"]

out = Console(highlight=False, markup=False)
err = Console(highlight=False, markup=False, stderr=True)

STAGES = {
    "prepare": "preparing the float model",
    "verify": "checking that preparing changed nothing",
    "calibrate": "calibrating",
    "ranges": "choosing ranges",
    "apply": "writing quantizers into the graph",
    "prove": "proving the result in onnxruntime",
    "write": "writing the model",
}
"""The pipeline's stages in words; another stage is called by its name."""


def message(kind: str, text: str, style: str) -> None:
    """One line on stderr that begins with `kind:`; only the terminal breaks it."""
    err.print(Text.assemble((f"{kind}:", style), " ", text), soft_wrap=True)


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
    logger, handler = logging.getLogger("quark_onnx"), _OnStderr()
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
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), TaskProgressColumn("{task.fields[count]}"))
    with Progress(*columns, TimeElapsedColumn(), console=err, transient=True) as display:
        task = display.add_task("", total=None, count="")

        def tell(stage: str, done: int, total: int | None) -> None:
            count = f"{done}/{total}" if total is not None else str(done or "")
            display.update(task, description=STAGES.get(stage, stage), completed=done, total=total, count=count)

        yield tell


def print_json(document: Any) -> None:
    """The document on stdout, the same bytes wherever it goes: never wrapped or coloured."""
    print(json.dumps(_strict(document), indent=1, ensure_ascii=False))


def _strict(value: Any) -> Any:
    """JSON has no infinity: "inf", "-inf" and "nan" are strings, which float() and Number() read."""
    if isinstance(value, Mapping):
        return {str(key): _strict(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def new_table(*headers: str, title: str | None = None, numbers: Iterable[int] = ()) -> Table:
    """An empty table with a rule under its headers; the columns in `numbers` are flush right."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for index, header in enumerate(headers):
        right = index in set(numbers)
        table.add_column(header, justify="right" if right else "left", no_wrap=right, overflow="fold")
    return table


def db_text(value: float) -> str:
    """A ratio in dB; infinite when nothing differs at all."""
    return "exact" if value == math.inf else f"{value:.1f} dB"


def grouped(reasons: Iterable[tuple[str, str, str]]) -> Table:
    """A table of (node, operator, reason) in which nodes with equal operator and reason share a row."""
    entries = list(reasons)
    names: dict[tuple[str, str], list[str]] = {}
    for node, op_type, reason in entries:
        names.setdefault((op_type, reason), []).append(node)
    counts = Counter({key: len(nodes) for key, nodes in names.items()})
    table = new_table("Float", "Operator", "Why", "Nodes", numbers=[0])
    for (op_type, reason), count in counts.most_common():
        nodes = names[op_type, reason]
        table.add_row(str(count), op_type, reason, nodes[0] + (", …" if count > 1 else ""))
    return table
