"""The presets of a manifest, tried in their order: the first within the budget, else the best of them."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quark_onnx.core.errors import QuarkError, ResourceError
from quark_onnx.core.records import Measured, least_alike, worst_of
from quark_onnx.engine.budget_excess import excess
from quark_onnx.engine.opened_model import open_model
from quark_onnx.evaluators import score
from quark_onnx.ladder import Ladder
from quark_onnx.pipeline import ModelQuantizer
from quark_onnx.result import Report
from quark_onnx.zoo.attempt import MODEL, Attempt, Failure, Found, Told, record
from quark_onnx.zoo.entry import Entry, Try

WAY_OUT = "let it try a finer preset, such as one with _ADAROUND or 16-bit activations, or allow more"

logger = logging.getLogger("quark_onnx")


def tried(entry: Entry, folder: Path, tell: Told) -> Found:
    """The first attempt within the budget, else the best one, else the first failure; and a record of each.

    Raises:
        EvaluatorError, ModelError: the float model cannot be scored.
    """
    before = _float_score(entry, tell)
    failures: list[Failure] = []
    records: list[Mapping[str, Any]] = []

    def attempt(numbered: tuple[int, Try]) -> Attempt | None:
        index, one = numbered
        try:
            made = _attempt(entry, one, folder / f"try{index}", tell, before)
        except ResourceError:
            raise
        except QuarkError as error:
            logger.error("%s, %s: %s", one.preset, tell.stage, error)
            failures.append(Failure(one, tell.stage, str(error)))
            records.append({"preset": one.preset, "stage": tell.stage, "error": str(error)})
            return None
        records.append(_record(made, before))
        return made

    ladder = Ladder(attempt, _better, lambda best: not best.over, lambda other: shutil.rmtree(other.folder))
    return Found(ladder.climb(enumerate(entry.tries)) or failures[0], records, before)


def _float_score(entry: Entry, tell: Told) -> float | None:
    if not entry.evaluator:
        return None
    open_model(entry.input)  # a broken model is no fault of the evaluator
    tell("evaluate", 0, None)
    return score(entry.evaluator, Path(entry.home), Path(entry.input)).value


def _better(new: Attempt, old: Attempt) -> bool:
    return not new.over or _merit(new) > _merit(old)


def _merit(attempt: Attempt) -> tuple[float, float]:
    """What makes one that is over budget better than another: its score, then its worst output."""
    worth = worst_of(_known(attempt.result.report))
    return attempt.score or 0.0, -math.inf if worth is None else worth


def _attempt(entry: Entry, one: Try, folder: Path, tell: Told, before: float | None) -> Attempt:
    quantizer = ModelQuantizer(one.configuration, tell)
    result = quantizer.quantize_model(entry.input, folder / MODEL, calibration_data_path=entry.data)
    after = None
    if before is not None:
        tell("evaluate", 0, None)
        after = score(entry.evaluator, Path(entry.home), folder / MODEL).value
    tell("judge", 0, None)
    over = excess(entry.budget, _known(result.report), before, after)
    return Attempt(one, folder, result, after, over, WAY_OUT)


def _known(report: Report) -> Mapping[str, Measured]:
    """The outputs as run; where the runtime of the target is not installed, as they are written."""
    return report.outputs or report.written


def _record(attempt: Attempt, before: float | None) -> dict[str, Any]:
    report, after = attempt.result.report, attempt.score
    classes = least_alike(report.outputs)
    return record(
        attempt.tried.preset,
        sqnr=worst_of(report.outputs),
        agreement=classes.agreement,
        kl=classes.kl,
        score=after,
        drop=None if before is None or after is None else before - after,
        size=report.stored["quantized"],
        within_budget=not attempt.over,
    )
