"""What a search was asked, and what became of it, in words: for its page and for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from quark_onnx.core.shown.figures import NOTHING, number, percent, times
from quark_onnx.optimize.records import Optimized, Point
from quark_onnx.report.wording import db

ASKED = {
    "max_drop": "a score at most {} below that of the float model",
    "min_sqnr": "at least {} dB at every output",
    "min_agreement": "the same arg-max on at least {} of the samples",
    "max_kl": "a KL divergence of at most {}",
}
"""Budgets by key."""

CHOICES = {
    "a8w8": "activations and weights in 8 bits",
    "a16w8": "activations in 16 bits, weights in 8",
    "w4": "weights alone, in 4 bits",
    "w8": "weights alone, in 8 bits",
    "float": "as it was",
}
"""Choices of a layer."""


def budget_text(budget: Mapping[str, Any]) -> str:
    """What was asked for, as one phrase; empty where nothing was."""
    return " and ".join(ASKED.get(key, f"{key} {{}}").format(_amount(key, value)) for key, value in budget.items())


def _amount(key: str, value: Any) -> str:
    if not isinstance(value, int | float):
        return str(value)
    return f"{value * 100:.4g}%" if key == "min_agreement" else number(value)


def choice_text(choice: str) -> str:
    """A choice in words: `weights alone, in 4 bits, blocks of 32`."""
    kind, _, block = choice.partition("/")
    return CHOICES.get(kind, kind) + (f", blocks of {block}" if block else "")


def agreement(value: float | None) -> str:
    """`98.20%`; all of them alone are 100%."""
    return NOTHING if value is None else "100%" if value >= 1 else f"{min(value, 0.9999):.2%}"


def part(value: float) -> str:
    """A time as a part of the float model's: `0.42 ×`."""
    return times(value or None)


def damage(value: float | None, measure: str) -> str:
    """What the table of layers says: a KL divergence, or an SQNR of that noise."""
    if measure == "kl":
        return divergence(value)
    return NOTHING if value is None else db(-decibels(value))


def divergence(value: float | None) -> str:
    """A KL divergence."""
    return NOTHING if value is None else "infinite" if value == math.inf else f"{value:.3g}"


def decibels(ratio: float) -> float:
    """A ratio of powers in dB."""
    return 10 * math.log10(ratio) if ratio > 0 else -math.inf


def drop(point: Point) -> str:
    """`0.0031 ± 0.0012 lower`; empty where there is no score."""
    if point.drop is None:
        return ""
    noise = "" if point.noise is None else f" ± {point.noise:.2g}"
    return f"{abs(point.drop):.2g}{noise} {'higher' if point.drop < 0 else 'lower'}"


def verdict(point: Point) -> str:
    """Whether a point is within the budget, or what exceeds it, or why there is none."""
    return f"no model: {point.error}" if point.error else "; ".join(point.over) or "within"


def standing(found: Optimized) -> str:
    """Whether the budget is met, in a few words."""
    if not found.budget:
        return "none"
    return "met" if found.met else "NOT met"


def figures(point: Point) -> str:
    """How far a point is from the float model: all that was measured, in a line."""
    known = [
        "" if point.kl is None else f"KL {divergence(point.kl)}",
        "" if point.agreement is None else f"same arg-max {agreement(point.agreement)}",
        "" if point.sqnr is None else db(point.sqnr),
        "" if point.score is None else f"score {number(point.score)}" + (f" ({drop(point)})" if drop(point) else ""),
        f"{percent(point.integers)} on integers",
    ]
    return ", ".join(text for text in known if text)
