"""Figures in words, and lists made short, as pages, cards and the terminal say them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

NOTHING = "–"
"""In place of what was not measured."""


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


def share(after: float, before: float) -> str:
    """`34% of 210 kB`; empty where there was nothing before."""
    return f"{percent(after / before)} of {size(before)}" if before else ""


def times(value: float | None) -> str:
    """`0.28 ×`."""
    return NOTHING if value is None else f"{value:.2f} ×"


def count(value: int, what: str) -> str:
    """`1 sample`, `2 samples`."""
    return f"{value} {what}" + "s" * (value != 1)


def number(value: float | None) -> str:
    """Four digits."""
    return NOTHING if value is None else f"{value:.4g}"


def reasons(entries: Mapping[str, str]) -> list[tuple[str, int, str]]:
    """(reason, how often, the first that it was given for)."""
    counts = Counter(entries.values())
    first = {reason: name for name, reason in reversed(list(entries.items()))}
    return [(reason, count, first[reason]) for reason, count in counts.most_common()]
