"""Power-of-two scales: which power makes the least squared error (Quark's `PowerOfTwoMethod.MinMSE`)."""

from __future__ import annotations

import numpy as np

from quark_onnx.core.number_formats import Format
from quark_onnx.numerics.ranges.distribution import Distribution

SHIFTS = np.arange(-1, 4)
"""Fraction bits next to those of min-max: the scale is doubled, kept, or divided by up to 8."""

SMALLEST, LARGEST = -118.0, 127.0
"""Exponents of the scales that `qparams` gives."""


def min_mse(seen: Distribution, format: Format) -> tuple[float, float]:
    """The ends of the grid whose power-of-two scale has the least sum of squared rounding and clipping errors.

    The search begins at the power nearest to the scale of min-max, in octaves; the zero point stays the one of min-max.
    Of equal errors the largest scale is taken. Quark looks at the middles of 2,048 bins that the first batch lays out;
    here errors are summed in closed form over all data.
    """
    low, high = min(seen.lo, 0.0), max(seen.hi, 0.0)
    if low == high:
        return 0.0, 0.0
    zero_point, scale = _min_max(low, high, format)
    scales = np.exp2(np.clip(np.rint(np.log2(scale)) - SHIFTS, SMALLEST, LARGEST))
    inside, outside = seen.errors(scales, zero_point, format.lo, format.hi)
    best = float(scales[int(np.argmin(inside + outside))])
    return (format.lo - zero_point) * best, (format.hi - zero_point) * best


def _min_max(low: float, high: float, format: Format) -> tuple[int, float]:
    """Zero point and scale of the range, before the scale becomes a power of two."""
    steps = format.hi - format.lo
    if format.symmetric and not (format.one_sided and low == 0):
        return format.middle, 2 * max(-low, high) / steps
    scale = (high - low) / steps
    return round(format.lo - low / scale), scale
