"""The pages of a zoo: one for each model, made in its process, and one for all, made by the run.

Both need the extra `report`; without it there are just the rows. Pages hold times, so they differ from run to run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from quark_onnx.core.json_reading import json_of
from quark_onnx.core.json_writing import json_text
from quark_onnx.core.shown.figures import size
from quark_onnx.report.build import report_of
from quark_onnx.report.model_report import Score
from quark_onnx.report.optimize_page import write_search
from quark_onnx.report.pages import write_report, write_zoo
from quark_onnx.report.zoo_rows import Status, ZooRow, row_of
from quark_onnx.zoo.attempt import Attempt
from quark_onnx.zoo.entry import Entry
from quark_onnx.zoo.rows import Outcome, Row

PAGE, CARD, SEARCH, INDEX = "report.html", "card.json", "search.html", "index.html"
"""The page of a model, what the page of the zoo says of it, the page of its search, and that of the zoo."""

STATUS: dict[str, Status] = {"good": "done", "over budget": "missed", "failed": "failed", "stopped": "stopped"}


def write_page(folder: Path, entry: Entry, made: Attempt, model: Path, row: Row, tell: Any) -> None:
    """Write the page of a model, its JSON, and its card into `folder`; where there was a search, its page, too.

    Args:
        model: where the quantized one lies.

    Raises:
        QuarkError: something cannot be measured.
    """
    if made.search is not None:
        write_search(made.search, folder / SEARCH, entry.name)
    score = None
    if row.drop is not None:
        score = Score(entry.evaluator, row.scores["float"], row.scores["quantized"])
    report = report_of(
        replace(made.result, output=model),
        made.tried.configuration,
        entry.input,
        entry.name,
        preset=made.tried.preset if made.search is None else "",
        score=score,
        tell=tell,
    )
    write_report(report, folder / PAGE, up=f"../{INDEX}")
    card = row_of(report, page=f"{entry.name}/{PAGE}")
    (folder / CARD).write_text(json_text(card) + "\n", encoding="utf-8")


def write_index(output: Path, outcomes: Iterable[Outcome], title: str) -> None:
    """Write the page of the zoo; every model is on it, also one that has no page of its own."""
    write_zoo([_line(output, outcome) for outcome in outcomes], output / INDEX, title=title)


def _line(output: Path, outcome: Outcome) -> ZooRow:
    row, cost = outcome.row, outcome.cost
    sizes = (row.bytes["float"], row.bytes["quantized"]) if row.bytes else None
    status = STATUS[row.status]
    agreement, kl = row.classes.agreement, row.classes.kl
    plain = ZooRow(row.name, status, row.preset, sqnr=row.least_sqnr, agreement=agreement, kl=kl, bytes=sizes)
    card = _card(output / row.name / CARD) if status in ("done", "missed") else None  # else that of an earlier run
    return replace(
        card or plain,
        status=status,
        preset=row.preset,
        tried=tuple(_word(one) for one in row.tries if one["preset"] != row.preset and one.get("error") != row.reason),
        seconds=cost.seconds,
        attempts=max(1, cost.attempts),
        stage=row.stage,
        reason=row.reason,
        log=tuple(outcome.log.splitlines()),
    )


def _card(file: Path) -> ZooRow | None:
    try:
        return ZooRow.from_dict(json_of(file.read_text("utf-8")))
    except Exception:  # not there, or damaged
        return None


def _word(tried: Mapping[str, Any]) -> str:
    """A word on a configuration that was not taken."""
    if "error" in tried:
        return f"{tried['preset']}: {tried['error']}"
    figures = [] if tried["within_budget"] else ["over budget"]
    figures += [size(tried["size"])]
    figures += [f"{float(tried['sqnr']):.1f} dB"] if tried["sqnr"] is not None else []
    figures += [f"KL {float(tried['kl']):.3g}"] if tried["kl"] is not None else []
    figures += [f"score {tried['score']:.4g}"] if tried["score"] is not None else []
    return f"{tried['preset']}: {', '.join(figures)}"
