"""Percentile and LayerwisePercentile: the range that keeps a percentage of the values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.number_formats import Format
from quark_onnx.numerics.quantizer import qparams
from quark_onnx.numerics.ranges.calibration_statistics import Statistics
from quark_onnx.numerics.ranges.distribution import Distribution

Range = tuple[float, float]


def percentile(s: Statistics | Distribution, percent: float, symmetric: bool) -> tuple[float, float]:
    """The range that keeps `percent` of the values, never wider than what was seen.

    symmetric: one threshold on |x| (Quark's and onnxruntime's default); otherwise (100 − percent)/2 is cut at either
    end. An end is the smallest value that has at least its part of the values at or below it; inside a bin of the
    histogram (0.8 % wide) values are taken as evenly spread.
    """
    seen = s if isinstance(s, Distribution) else Distribution.of(s)
    if percent == 100 or not seen.low.size:
        return seen.lo, seen.hi
    if symmetric:
        reach = _quantile(seen.folded(), percent)
        ends = -reach, reach
    else:
        tail = (100 - percent) / 2
        ends = _quantile((seen,), tail), _quantile((seen,), 100 - tail)
    lo, hi = (min(max(end, s.lo), s.hi) for end in ends)
    return lo, hi


def _quantile(parts: tuple[Distribution, ...], percent: float) -> float:
    """The smallest value that has `percent` of all values of the parts at or below it."""
    points = np.unique(np.concatenate([ends for part in parts for ends in (part.low, part.high)]))
    upto: NDArray[np.float64] = np.sum([part.below(points, "right") for part in parts], axis=0)
    rank = percent * upto[-1] / 100
    k = min(int(np.searchsorted(upto, rank)), points.size - 1)
    before = float(sum(part.below(points[k]) for part in parts))
    if k == 0 or before < rank:
        return float(points[k])
    share = (rank - upto[k - 1]) / (before - upto[k - 1])
    return float(points[k - 1] + share * (points[k] - points[k - 1]))


def best_percentile(
    seen: Distribution, format: Format, candidates: tuple[float, ...], symmetric: bool, metric: str
) -> Range:
    """Of several percentages the range with the least mean error of the values, "mae" or "mse"; the first on ties."""
    ranges = np.array([percentile(seen, percent, symmetric) for percent in candidates])
    q = qparams(ranges[:, 0], ranges[:, 1], format)
    measure = seen.absolute if metric == "mae" else seen.errors
    rounding, clipping = measure(q.scale, q.zero_point, format.lo, format.hi)
    lo, hi = ranges[np.argmin(rounding + clipping)]
    return float(lo), float(hi)
