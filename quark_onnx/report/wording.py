"""Figures as the pages say them, and lists made short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from quark_onnx.core.records import GOOD, POOR, Measured, ProtectedRegion
from quark_onnx.engine.protection_wording import became_text
from quark_onnx.engine.result_wording import (
    agreement_text,
    classes_text,
    correction_text,
    decibels_text,
    measured_text,
    slice_text,
    worth_text,
)
from quark_onnx.engine.saturation_certificate import Certificate, summary
from quark_onnx.report.model_report import ModelReport

NOTHING = "–"


def db(value: float | None) -> str:
    """`36.5 dB`; infinite ratios in words."""
    return NOTHING if value is None else decibels_text(value)


def grade(value: float | None) -> str:
    """How good a ratio of an output is: good, fair or poor; empty where it is unknown."""
    if value is None:
        return ""
    return "good" if value >= GOOD else "fair" if value >= POOR else "poor"


def whole(one: Measured) -> str:
    """An output as a whole: its ratio, or its share of equal values."""
    return measured_text(replace(one, worst=None))


def worst(one: Measured) -> str:
    """The worst slice of an output, if slices were measured."""
    return slice_text(one) or NOTHING


def worth(one: Measured) -> str:
    """What an output is worth, in dB or as a share of equal values."""
    return worth_text(one)


def classes(one: Measured) -> str:
    """How far the classes of an output agree, if it holds some."""
    return classes_text(one) or NOTHING


def alike(share: float) -> str:
    """How many rows have the same class."""
    return agreement_text(share)


def size(value: float | None) -> str:
    """`12.3 MB`, in powers of ten."""
    if value is None:
        return NOTHING
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}" if value < 1000 * scale else f"{value / scale:.0f} {unit}"
    return f"{value:.0f} B"


def milliseconds(value: float | None) -> str:
    """`1.23 ms`, or `18.6 µs`."""
    if value is None:
        return NOTHING
    return f"{value * 1000:.3g} µs" if value < 1 else f"{value:.3g} ms" if value < 1000 else f"{value / 1000:.3g} s"


def seconds(value: float) -> str:
    """`0.3 s`, `5 min 3 s` or `2 h 5 min`."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def percent(value: float | None) -> str:
    """`28%`; small parts with the digits that they need."""
    if value is None:
        return NOTHING
    part = value * 100
    return "0%" if part == 0 else f"{part:.0f}%" if part >= 9.95 else f"{part:.2g}%"


def times(value: float | None) -> str:
    """`0.28 ×`."""
    return NOTHING if value is None else f"{value:.2f} ×"


def count(value: int, what: str) -> str:
    """`1 sample`, `2 samples`."""
    return f"{value} {what}" + "s" * (value != 1)


def number(value: float | None) -> str:
    """Four digits."""
    return NOTHING if value is None else f"{value:.4g}"


def float_groups(report: ModelReport) -> list[tuple[str, str, list[str]]]:
    """(operator, reason, nodes) of what runs in float, most nodes first."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in report.ledger:
        if row.status == "float":
            groups.setdefault((row.op_type, row.reason), []).append(row.node)
    return [(*key, nodes) for key, nodes in sorted(groups.items(), key=lambda item: -len(item[1]))]


def options(report: ModelReport) -> list[tuple[str, Any, bool]]:
    """(field, value, whether it differs from the preset): fields of the configuration that say something."""
    found = []
    for name, value in _flat(report.config).items():
        usual = _flat(report.default).get(name)
        differs = bool(report.default) and value != usual
        if differs or value not in (False, None, "", (), [], {}):
            found.append((name, value, differs))
    return sorted(found, key=lambda entry: not entry[2])


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields, with the extra options among them."""
    extra = config.get("extra_options") or {}
    return {name: value for name, value in config.items() if name != "extra_options"} | dict(extra)


def became(region: ProtectedRegion) -> str:
    """What protection made of a region: how many nodes are float, or weights have own scales, and which."""
    return became_text(region)


def change(value: float) -> str:
    """`+3.1%`."""
    return "0%" if abs(value) < 0.0005 else f"{value:+.1%}"


def on_integers(report: ModelReport) -> tuple[int, int]:
    """Nodes that run on integers or are taken in by one that does, of how many."""
    return sum(row.status != "float" for row in report.ledger), len(report.ledger)


def certified(report: ModelReport) -> str:
    """How many integer nodes compute the same on every x64 processor."""
    return summary(report.certificates)


def uncertified(report: ModelReport) -> list[tuple[str, Certificate]]:
    """Nodes that may not, those with most pairs of weights that are too large first."""
    found = [entry for entry in report.certificates.items() if entry[1].verdict != "exact"]
    return sorted(found, key=lambda entry: -entry[1].unsafe_pairs)


def reasons(entries: Mapping[str, str]) -> list[tuple[str, int, str]]:
    """(reason, how often, the first that it was given for)."""
    counts = Counter(entries.values())
    first = {reason: name for name, reason in reversed(list(entries.items()))}
    return [(reason, count, first[reason]) for reason, count in counts.most_common()]


def correction(r: ModelReport) -> str:
    """What became of bias correction, in a sentence; empty where it was not judged."""
    text = correction_text(r.correction)
    return text and f"Bias correction was {text}."
