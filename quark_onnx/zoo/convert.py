"""One model of a zoo, in its own process: its presets tried or its configuration searched for, and what is written."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from quark_onnx.core.errors import QuarkError, ResourceError
from quark_onnx.core.json_writing import json_text
from quark_onnx.zoo.attempt import MODEL, Attempt, Failure, Told
from quark_onnx.zoo.entry import Entry
from quark_onnx.zoo.page import write_page
from quark_onnx.zoo.rows import Row
from quark_onnx.zoo.searched import searched
from quark_onnx.zoo.store import hashes, write_result
from quark_onnx.zoo.tried import tried

PLAN = "plan"


logger = logging.getLogger("quark_onnx")


def convert(entry: Entry, folder: Path, tell: Told, *, pages: bool = False) -> None:
    """Make `folder/out`: the outputs of a model, or just the row that says why there are none.

    pages: also its page, in `folder/page`; the outputs are complete when that begins.

    Raises:
        EvaluatorKilled, ResourceError, or a bug: all of which may be gone the next time.
    """
    out = folder / "out"
    best: Attempt | Failure | None = None
    row = Row(entry.name, entry.shown_input, "failed")
    try:
        found = tried(entry, folder, tell) if entry.goal is None else searched(entry, entry.goal, folder, tell)
        best = found.best
        if isinstance(best, Attempt):
            _write(best, out)
            row = _row(row, best)
            tell.write(stage="done", seconds=dict(best.result.report.seconds))
        else:
            row = replace(row, stage=best.stage, reason=best.error)
        row = replace(row, scores=found.scores, tries=tuple(found.records))
    except ResourceError:
        raise
    except QuarkError as error:
        logger.error("%s: %s", tell.stage, error)
        row = replace(row, stage=tell.stage, reason=str(error))
    out.mkdir(exist_ok=True)
    write_result(out, replace(row, files=hashes(out)))
    if pages and isinstance(best, Attempt):  # all that matters is written by now
        _paged(folder / "page", entry, best, row, tell)


def _paged(folder: Path, entry: Entry, found: Attempt, row: Row, tell: Told) -> None:
    """The page of the model, where it can be made: what goes wrong with it is told in the log."""
    folder.mkdir()
    try:
        write_page(folder, entry, found, folder.parent / "out" / MODEL, row, tell)
    except QuarkError as error:
        logger.warning("there is no report: %s", error)
    tell.write(stage="done", seconds=dict(found.result.report.seconds))


def _row(row: Row, attempt: Attempt) -> Row:
    report = attempt.result.report
    return replace(
        row,
        status="over budget" if attempt.over else "good",
        stage="judge" if attempt.over else "",
        reason="; ".join((*attempt.over, attempt.way_out)) if attempt.over else "",
        preset=attempt.tried.preset,
        sqnr=dict(report.sqnr),
        outputs=dict(report.outputs),
        bytes=dict(report.bytes),
        fused=report.fused,
        samples=report.samples,
        probes=report.probes,
        warnings=report.warnings,
    )


def _write(attempt: Attempt, out: Path) -> None:
    """The folder of a model that was quantized, all but its row."""
    result = attempt.result
    attempt.folder.rename(out)
    result.plan.save(out / PLAN, attempt.tried.configuration.to_json())
    (out / "evidence.json").write_text(json_text(_timeless(result.report.to_dict())) + "\n", encoding="utf-8")


def _timeless(value: Any) -> Any:
    """A report without its times, which are no part of what must be the same in every run."""
    if isinstance(value, Mapping):
        return {key: _timeless(entry) for key, entry in value.items() if key != "seconds"}
    if isinstance(value, (list, tuple)):
        return [_timeless(entry) for entry in value]
    return value
