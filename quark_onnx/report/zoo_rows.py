"""A model as one row of the zoo's page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from quark_onnx.core.version import VERSION
from quark_onnx.report.advice import advise
from quark_onnx.report.model_report import Failure, ModelReport, Score

Status = Literal["done", "stopped", "missed", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class ZooRow:
    """One model of a zoo: of any length, all of it plain values (`plain` makes JSON, `from_dict` reads it).

    name         of the model, unique in the zoo
    status       done: there is a model; missed: there is one, but it is not within the budget; failed: there is none;
                 stopped: its turn did not come, or the run ended before it was done
    preset       that the model was made with; of a failure: the one that was tried last
    tried        presets, or points of a search, that were tried and not taken, each with a word on it
    page         path of the model's page, relative to that of the zoo; empty: there is none
    score        what the evaluator said; None: there was none
    sqnr         dB that the worst output is worth; None: not measured
    agreement    share of rows with the same largest value, of the output whose classes diverge most; None: no classes
    kl           KL(float ‖ quantized) of that output in nats; None: no classes
    bytes        of the float and of the quantized model
    milliseconds of the float and of the quantized model, medians of one run in turn
    seconds      that the model took, all attempts
    worst_layer  that harms the outputs most, and what it does, in words
    advice       what to try, most important first
    attempts     times that it was begun
    stage        of a failure: what was being done
    reason       of a failure, one line
    log          of a failure: the last lines
    """

    name: str
    status: Status
    preset: str = ""
    tried: tuple[str, ...] = ()
    page: str = ""
    score: Score | None = None
    sqnr: float | None = None
    agreement: float | None = None
    kl: float | None = None
    bytes: tuple[int, int] | None = None
    milliseconds: tuple[float, float] | None = None
    seconds: float = 0.0
    worst_layer: str = ""
    advice: tuple[str, ...] = ()
    attempts: int = 1
    stage: str = ""
    reason: str = ""
    log: tuple[str, ...] = ()

    @property
    def size_ratio(self) -> float | None:
        """Size of the quantized model as a part of the float one's."""
        return None if self.bytes is None or not self.bytes[0] else self.bytes[1] / self.bytes[0]

    @property
    def latency_ratio(self) -> float | None:
        """Time of the quantized model as a part of the float one's."""
        return None if self.milliseconds is None or not self.milliseconds[0] else _ratio(self.milliseconds)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ZooRow:
        """The row that `plain` made plain values of; fields of other versions are left out.

        Raises:
            ValueError: there is no name, or an unknown status.
        """
        known = {field.name for field in fields(cls)}
        found = {key: value for key, value in values.items() if key in known}
        if not found.get("name") or found.get("status") not in STATUSES:
            raise ValueError(f"{dict(values)!r} is no row: it needs a name, and a status of {STATUSES}")
        for key in ("tried", "advice", "log", "bytes", "milliseconds"):
            if isinstance(found.get(key), list):
                found[key] = tuple(found[key])
        if found.get("score") is not None:
            score = found["score"]
            found["score"] = Score(score["metric"], float(score["original"]), float(score["quantized"]))
        for key in ("sqnr", "agreement", "kl"):
            if found.get(key) is not None:
                found[key] = float(found[key])
        return cls(**found)

    @property
    def way_out(self) -> tuple[str, ...]:
        """The advice; of a failure that came with none, what its reason alone suggests."""
        if self.status != "failed" or self.advice:
            return self.advice
        report = ModelReport(self.name, VERSION, self.preset, failure=Failure(self.stage, self.reason))
        return tuple(advice.text for advice in advise(report))


def _ratio(pair: tuple[float, float]) -> float:
    return pair[1] / pair[0]


def row_of(report: ModelReport, *, page: str = "", seconds: float | None = None, **more: Any) -> ZooRow:
    """The row of a model's report.

    Args:
        page: path of its page, relative to that of the zoo.
        seconds: that the model took; default: the sum of the report's stages.
        more: any other field of the row, e.g. `status="missed"`, `tried`, `attempts`.
    """
    failure, worst = report.failure, next(iter(report.layers.worst(1)), None)
    sizes, latency = report.sizes, report.latency
    values: dict[str, Any] = {
        "name": report.name,
        "status": "done" if failure is None else "failed",
        "preset": report.preset,
        "page": page,
        "score": report.score,
        "sqnr": report.worst_sqnr,
        "agreement": report.classes.agreement,
        "kl": report.classes.kl,
        "bytes": None if sizes is None else (sizes.original, sizes.quantized),
        "milliseconds": None if latency is None else (latency.original.median, latency.quantized.median),
        "seconds": sum(report.seconds.values()) if seconds is None else seconds,
        "advice": tuple(advice.text for advice in report.advice if advice.level != "note"),
    }
    if worst is not None:
        share = "" if worst.share is None else f", {worst.share:.0%} of the noise"
        values["worst_layer"] = f"{worst.name}: {worst.isolated:.1f} dB{share}"
    if failure is not None:
        values |= {"stage": failure.stage, "reason": failure.reason, "log": failure.log}
    return ZooRow(**(values | more))
