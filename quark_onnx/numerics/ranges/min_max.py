"""MinMax, and what NonOverflow begins with: all that was seen."""

from __future__ import annotations

from quark_onnx.numerics.ranges.calibration_statistics import Statistics
from quark_onnx.numerics.ranges.distribution import Distribution


def minmax(s: Statistics | Distribution) -> tuple[float, float]:
    """The smallest and the largest value seen."""
    return s.lo, s.hi
