"""One model of a zoo, in its own process: try its configurations, judge, keep the first within the budget."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from quark_onnx.core.errors import QuarkError, ResourceError
from quark_onnx.core.json_writing import json_text
from quark_onnx.core.records import least_alike, worst_of
from quark_onnx.engine.budget_excess import excess
from quark_onnx.engine.opened_model import open_model
from quark_onnx.evaluators import score
from quark_onnx.ladder import Ladder
from quark_onnx.pipeline import ModelQuantizer
from quark_onnx.result import Result
from quark_onnx.zoo.entry import Entry, Try
from quark_onnx.zoo.page import write_page
from quark_onnx.zoo.rows import Row
from quark_onnx.zoo.store import hashes, write_result

MODEL = "model_int8.onnx"
PLAN = "plan"


logger = logging.getLogger("quark_onnx")


class Told(Protocol):
    """Told of progress; `stage` is the last stage it was told of."""

    stage: str

    def __call__(self, stage: str, done: int, total: int | None) -> None: ...

    def write(self, **values: Any) -> None:
        """Note values beside the stage."""


@dataclass(frozen=True, eq=False)
class Attempt:
    """A configuration that was tried: its model lies in `folder`, `over` says what exceeds the budget."""

    tried: Try
    folder: Path
    result: Result
    score: float | None
    over: tuple[str, ...]
    record: Mapping[str, Any]

    @property
    def worth(self) -> float | None:
        """dB of its worst output; None where nothing was measured."""
        return worst_of(self.result.report.outputs)

    @property
    def merit(self) -> tuple[float, float]:
        """What makes one that is over budget better than another: its score, then its worst output."""
        return (self.score or 0.0, self.worth if self.worth is not None else -math.inf)


@dataclass(frozen=True)
class Failure:
    """A configuration that could not be used, and in which stage."""

    tried: Try
    stage: str
    error: str

    @property
    def record(self) -> dict[str, Any]:
        """What the row says of it."""
        return {"preset": self.tried.preset, "stage": self.stage, "error": self.error}


def convert(entry: Entry, folder: Path, tell: Told, *, pages: bool = False) -> None:
    """Make `folder/out`: the outputs of a model, or just the row that says why there are none.

    pages: also its page, in `folder/page`; the outputs are complete when that begins.

    Raises:
        EvaluatorKilled, ResourceError, or a bug: all of which may be gone the next time.
    """
    out = folder / "out"
    found: Attempt | Failure | None = None
    row = Row(entry.name, entry.shown_input, "failed")
    try:
        before = _float_score(entry, tell)
        found, records = _tried(entry, folder, tell, before)
        scores = {} if before is None else {"float": before}
        if isinstance(found, Attempt):
            _write(found, entry, out)
            row = _row(row, found, scores)
            tell.write(stage="done", seconds=dict(found.result.report.seconds))
        else:
            row = replace(row, stage=found.stage, reason=found.error, scores=scores)
        row = replace(row, tries=tuple(records))
    except ResourceError:
        raise
    except QuarkError as error:
        logger.error("%s: %s", tell.stage, error)
        row = replace(row, stage=tell.stage, reason=str(error))
    out.mkdir(exist_ok=True)
    write_result(out, replace(row, files=hashes(out)))
    if pages and isinstance(found, Attempt):  # all that matters is written by now
        _paged(folder / "page", entry, found, row, tell)


def _paged(folder: Path, entry: Entry, found: Attempt, row: Row, tell: Told) -> None:
    """The page of the model, where it can be made: what goes wrong with it is told in the log."""
    folder.mkdir()
    try:
        write_page(folder, entry, found.tried, found.result, folder.parent / "out" / MODEL, row, tell)
    except QuarkError as error:
        logger.warning("there is no report: %s", error)
    tell.write(stage="done", seconds=dict(found.result.report.seconds))


def _float_score(entry: Entry, tell: Told) -> float | None:
    if not entry.evaluator:
        return None
    open_model(entry.input)  # a broken model is no fault of the evaluator
    tell("evaluate", 0, None)
    return score(entry.evaluator, Path(entry.home), Path(entry.input)).value


def _tried(
    entry: Entry, folder: Path, tell: Told, before: float | None
) -> tuple[Attempt | Failure, list[Mapping[str, Any]]]:
    """The first attempt within the budget, else the best one, else the first failure; and a record of each."""
    failures: list[Failure] = []
    records: list[Mapping[str, Any]] = []

    def attempt(numbered: tuple[int, Try]) -> Attempt | None:
        index, tried = numbered
        try:
            made = _attempt(entry, tried, folder / f"try{index}", tell, before)
        except ResourceError:
            raise
        except QuarkError as error:
            logger.error("%s, %s: %s", tried.preset, tell.stage, error)
            failures.append(Failure(tried, tell.stage, str(error)))
            records.append(failures[-1].record)
            return None
        records.append(made.record)
        return made

    ladder = Ladder(attempt, _better, lambda best: not best.over, lambda other: shutil.rmtree(other.folder))
    return ladder.climb(enumerate(entry.tries)) or failures[0], records


def _better(new: Attempt, old: Attempt) -> bool:
    return not new.over or new.merit > old.merit


def _attempt(entry: Entry, tried: Try, folder: Path, tell: Told, before: float | None) -> Attempt:
    quantizer = ModelQuantizer(tried.configuration, tell)
    result = quantizer.quantize_model(entry.input, folder / MODEL, calibration_data_path=entry.data)
    after = None
    if before is not None:
        tell("evaluate", 0, None)
        after = score(entry.evaluator, Path(entry.home), folder / MODEL).value
    tell("judge", 0, None)
    over = excess(entry.budget, result.report.outputs, before, after)
    classes = least_alike(result.report.outputs)
    record = {
        "preset": tried.preset,
        "sqnr": worst_of(result.report.outputs),
        "agreement": classes.agreement,
        "kl": classes.kl,
        "score": after,
        "drop": None if before is None or after is None else before - after,
        "within_budget": not over,
    }
    return Attempt(tried, folder, result, after, over, record)


def _row(row: Row, attempt: Attempt, scores: Mapping[str, float]) -> Row:
    report = attempt.result.report
    return replace(
        row,
        status="over budget" if attempt.over else "good",
        stage="judge" if attempt.over else "",
        reason="; ".join(attempt.over) + (OVER if attempt.over else ""),
        preset=attempt.tried.preset,
        scores={**scores, **({} if attempt.score is None else {"quantized": attempt.score})},
        sqnr=dict(report.sqnr),
        outputs=dict(report.outputs),
        bytes=dict(report.bytes),
        fused=report.fused,
        samples=report.samples,
        probes=report.probes,
        warnings=report.warnings,
    )


OVER = "; let it try a finer preset, such as one with _ADAROUND or 16-bit activations, or allow more"


def _write(attempt: Attempt, entry: Entry, out: Path) -> None:
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
