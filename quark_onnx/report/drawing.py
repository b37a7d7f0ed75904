"""Geometry of the drawings: from figures to coordinates. The templates turn them into SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from quark_onnx.report.model_report import Histogram, LayerError
from quark_onnx.report.wording import db

TOP_DB = 60.0
"""dB at the upper edge of the chart; what has more is drawn there."""


@dataclass(frozen=True)
class Mark:
    """A point of a chart, with what it says."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Chart:
    """The error of layers.

    radius  of the marks, smaller where there are many
    line    points of the accumulated error
    ticks   (y, text) of the lines across
    labels  (x, text) below
    """

    width: int
    height: int
    left: float
    bottom: float
    radius: float
    accumulated: tuple[Mark, ...]
    isolated: tuple[Mark, ...]
    line: str
    ticks: tuple[tuple[float, str], ...]
    labels: tuple[tuple[float, str], ...]


def layer_chart(layers: Sequence[LayerError], *, width: int = 960, height: int = 260) -> Chart | None:
    """The chart of all layers, in order of the graph; None where there are fewer than two."""
    if len(layers) < 2:
        return None
    left, right, top, bottom = 56.0, width - 12.0, 12.0, height - 30.0
    highest = max((v for e in layers for v in (e.isolated, e.accumulated) if v is not None), default=0.0)
    top_db = 10 * math.ceil(min(max(highest, 30.0), TOP_DB) / 10)
    step = (right - left) / len(layers)

    def y(value: float) -> float:
        return round(bottom - (bottom - top) * min(max(value, 0.0), top_db) / top_db, 1)

    def marks(which: str) -> tuple[Mark, ...]:
        found = []
        for index, error in enumerate(layers):
            value = getattr(error, which)
            if value is not None:
                found.append(
                    Mark(round(left + step * (index + 0.5), 1), y(value), f"{error.name}: {which} {db(value)}")
                )
        return tuple(found)

    accumulated = marks("accumulated")
    every = math.ceil(len(layers) / 24)
    return Chart(
        width,
        height,
        left,
        bottom,
        round(min(3.5, max(1.2, 0.6 * step)), 1),
        accumulated,
        marks("isolated"),
        " ".join(f"{mark.x},{mark.y}" for mark in accumulated),
        tuple((y(tick), f"{tick}{'+' if tick == top_db < highest else ''} dB") for tick in range(0, top_db + 1, 10)),
        tuple((round(left + step * (i + 0.5), 1), str(i + 1)) for i in range(0, len(layers), every)),
    )


@dataclass(frozen=True)
class Bars:
    """A histogram. `bars`: (x, y, width, height, whether it is inside of the range); `inside`: ends of the range."""

    width: int
    height: int
    base: float
    bars: tuple[tuple[float, float, float, float, bool], ...]
    inside: tuple[float, float]


def bars(histogram: Histogram, *, width: int = 360, height: int = 120) -> Bars:
    """The histogram, counts on a logarithmic axis."""
    base, top, n = height - 4.0, 4.0, max(len(histogram.counts), 1)
    most = math.log10(max(max(histogram.counts, default=0), 1) + 1)
    step = width / n
    lo, hi = ((end - histogram.start) / histogram.width * step for end in histogram.range)
    drawn = []
    for index, count in enumerate(histogram.counts):
        if count:
            tall = round((base - top) * math.log10(count + 1) / most, 2)
            x, middle = round(index * step, 2), (index + 0.5) * step
            within = lo - 0.499 * step < middle < hi + 0.499 * step  # a part of the bin is inside
            drawn.append((x, round(base - tall, 2), round(step, 2), tall, within))
    return Bars(width, height, base, tuple(drawn), (round(max(lo, 0.0), 2), round(min(hi, float(width)), 2)))
