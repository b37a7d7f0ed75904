"""The outcome of a search as text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from quark_onnx.cli.console import lines, out
from quark_onnx.cli.tables import facts, new_table, smaller_text
from quark_onnx.core.shown.figures import NOTHING, milliseconds, number, seconds, size
from quark_onnx.optimize import Optimized, Point
from quark_onnx.report import search_wording as words
from quark_onnx.report.wording import db


def print_search(found: Optimized, page: Path) -> None:
    """The points that no other one beats, which one was chosen and why, and how to ask for the next ones."""
    point = found.point
    out.print(front_table(found))
    budget = words.budget_text(found.budget)
    rows: dict[str, str | Text] = {
        "Budget": f"{words.standing(found)}: {budget}" if budget else "none: the knee of the curve",
        "Chosen": f"point {point.number}: {point.name}",
        "Why": found.reason,
        "In the way": lines(found.blame),
        "Size": smaller_text(found.float_size, point.size),
        "Time": _time(found),
        "Outputs": words.figures(point),
        "Judged on": f"{found.samples[1]} samples that taught nothing; {found.samples[0]} taught",
        "Tried": f"{len(found.points)} points in {seconds(found.seconds)}",
        "Next": lines([f"{text} as the budget" for text in found.advice]),
        "Wrote": "" if found.output is None else f"{found.output}  ({decimal(point.size)})",
        "Report": str(page),
    }
    out.print(facts(rows))


COLUMNS: dict[str, Callable[[Point], str]] = {
    "Size": lambda point: size(point.size),
    "Time": lambda point: words.part(point.time),
    "KL": lambda point: words.divergence(point.kl),
    "SQNR": lambda point: db(point.sqnr),
    "Score": lambda point: NOTHING if point.score is None else f"{number(point.score)} ({words.drop(point)})",
}
"""Figures of a point. A column that has none is left out."""


def front_table(found: Optimized) -> Table:
    """The points of the front, the cheapest first, and the chosen one wherever it is."""
    points = found.front if found.point in found.front else (*found.front, found.point)
    cells = {name: [figure(point) for point in points] for name, figure in COLUMNS.items()}
    cells = {name: column for name, column in cells.items() if set(column) != {NOTHING}}
    budget = {"Budget": ["within" if point.good else "over" for point in points]} if found.budget else {}
    table = new_table("", "#", "Point", *cells, *budget, numbers=(1, *range(3, 3 + len(cells))))
    for point, *figures in zip(points, *cells.values(), *budget.values(), strict=True):
        table.add_row("→" if point.number == found.chosen else "", str(point.number), point.name, *figures)
    return table


def _time(found: Optimized) -> str:
    point = found.point
    if point.latency is not None:
        before, after = map(milliseconds, point.latency)
        return f"{before} → {after} in kernels, measured on this machine"
    return f"{words.part(point.time)} that of the float model, estimated" if point.time else ""
