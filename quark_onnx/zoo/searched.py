"""The configuration of a model searched for: the smallest or fastest one within its budget."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from quark_onnx.optimize import Optimized, Point, optimize
from quark_onnx.result import Result
from quark_onnx.zoo.attempt import MODEL, Attempt, Found, Told, record
from quark_onnx.zoo.entry import Entry, Goal, Try

logger = logging.getLogger("quark_onnx")


def searched(entry: Entry, goal: Goal, folder: Path, tell: Told) -> Found:
    """The point that the search chose, and a record of each.

    Raises:
        QuarkError: there is nothing to search for, or no point gave a model.
    """
    made = folder / "searched"
    made.mkdir()
    found = optimize(
        entry.input,
        None,
        entry.budget,
        output=made / MODEL,
        folder=goal.trials or None,
        objective=goal.objective,
        evaluate=entry.evaluator or None,
        home=entry.home,
        time_limit=goal.time,
        target=goal.target,
        options=goal.options,
        data_path=entry.data,
        progress=tell,
    )
    for warning in found.warnings:
        logger.warning("%s", warning)
    point = found.point
    taken = Try(f"search: {goal.objective} ({point.name})", point.config)
    way_out = f"{found.reason}; allow more" + (", or give it more time" if found.stopped else "")
    best = Attempt(taken, made, _warned(found), point.score, found.blame, way_out, replace(found, output=None))
    names = {point.number: taken.preset}
    records = [_record(names.get(one.number, one.name), one) for one in found.points]
    return Found(best, records, found.float_score)


def _warned(found: Optimized) -> Result:
    """The result of the chosen point with what the search warns of, but for times: they differ from run to run."""
    lasting = [text for text in found.warnings if text not in found.timed]
    if found.stopped:
        lasting.append(f"the search was ended by {found.stopped}: this is the best so far; with more time it goes on")
    report = found.result.report
    return replace(found.result, report=replace(report, warnings=tuple(dict.fromkeys((*report.warnings, *lasting)))))


def _record(name: str, point: Point) -> Mapping[str, Any]:
    if point.error:
        return {"preset": name, "error": point.error}
    return record(
        name,
        sqnr=point.sqnr,
        agreement=point.agreement,
        kl=point.kl,
        score=point.score,
        drop=point.drop,
        size=point.size,
        within_budget=point.good,
    )
