"""Figures as the pages say them, and lists made short."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from quark_onnx.core.records import Measured, ProtectedRegion
from quark_onnx.core.shown.figures import NOTHING
from quark_onnx.engine.protection_wording import became_text
from quark_onnx.engine.result_wording import (
    agreement_text,
    classes_text,
    correction_text,
    decibels_text,
    measured_text,
    slice_text,
    training_text,
    worth_text,
)
from quark_onnx.engine.saturation_certificate import Certificate, summary
from quark_onnx.report.model_report import ModelReport


def db(value: float | None) -> str:
    """`36.5 dB`; infinite ratios in words."""
    return NOTHING if value is None else decibels_text(value)


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


def correction(r: ModelReport) -> str:
    """What became of bias correction, in a sentence; empty where it was not judged."""
    text = correction_text(r.correction)
    return text and f"Bias correction was {text}."


def training(r: ModelReport) -> str:
    """What training brought, in a sentence; empty where there was none."""
    return "" if r.trained is None else f"Training: {training_text(r.trained)}."
