"""What protection did, in words: a line for each region."""

from __future__ import annotations

from quark_onnx.core.records import ProtectedRegion
from quark_onnx.engine.result_wording import decibels_text

NAMED = 3
"""Nodes and weights that a line names, at most."""

HALF = 0.005
"""Half of a percent: less is shown as nothing."""


def region_text(region: ProtectedRegion) -> str:
    """`4 nodes float (h, p, …): output 'y' 3.1 dB → 35.2 dB, for 12% of the integer products and 3% more time`."""
    gained = f"output {region.output!r} {_ratio(region.before)} → {_ratio(region.after)}"
    return f"{became_text(region)}: {gained}, {cost_text(region)}"


def became_text(region: ProtectedRegion) -> str:
    """`4 nodes float (h, p, …)`, or `1 weight with a scale per channel (w)`."""
    if region.action == "own scales":
        return f"{_count(region.tensors, 'weight')} with a scale per channel ({names_text(region.tensors)})"
    return f"{_count(region.nodes, 'node')} float ({names_text(region.nodes)})"


def names_text(names: tuple[str, ...]) -> str:
    """The first few."""
    return ", ".join(names[:NAMED]) + ", …" * (len(names) > NAMED)


def cost_text(region: ProtectedRegion) -> str:
    """`for 12% of the integer products and 3% more time`; times are estimated."""
    costs = [f"{region.products:.0%} of the integer products"] if region.products >= HALF else []
    costs += [f"{region.time:.0%} more time"] if region.time >= HALF else []
    return f"for {' and '.join(costs)}" if costs else "at no cost"


def _ratio(value: float | None) -> str:
    return "not measured" if value is None else decibels_text(value)


def _count(names: tuple[str, ...], what: str) -> str:
    return f"{len(names)} {what}" + "s" * (len(names) != 1)
