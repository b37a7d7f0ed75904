"""The range methods by name: what was seen of a tensor, its format and the settings in, (lo, hi) out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.number_formats import Format
from quark_onnx.core.settings.range_methods import CUTS_BOTH_ENDS, METHODS, Ranging
from quark_onnx.numerics.ranges import aimet, power_of_two
from quark_onnx.numerics.ranges.calibration_statistics import Statistics
from quark_onnx.numerics.ranges.distribution import Distribution
from quark_onnx.numerics.ranges.entropy import entropy
from quark_onnx.numerics.ranges.gaussian import bell
from quark_onnx.numerics.ranges.mean_squared_error import min_mse
from quark_onnx.numerics.ranges.min_max import minmax
from quark_onnx.numerics.ranges.percentile import best_percentile, percentile

Range = tuple[float, float]
Method = Callable[[Distribution, Format, Ranging], Range]


def find_range(seen: Distribution | Statistics, format: Format, how: Ranging) -> Range:
    """The range that a method takes, such that `qparams(lo, hi, format)` is its scale and zero point.

    It is finite and contains 0, and is (0, 0) where nothing but zeros, or nothing finite, was seen. It depends on the
    statistics alone, and those not on how the data were split or in which order they came.

    Raises:
        ConfigError: there is no such method.
    """
    if how.method not in TABLE:
        raise ConfigError(f"unknown range method {how.method!r}{nearest(how.method, tuple(METHODS))}")
    distribution = seen if isinstance(seen, Distribution) else Distribution.of(seen)
    if not distribution.low.size or distribution.lo == distribution.hi == 0:
        return min(distribution.lo, 0.0), max(distribution.hi, 0.0)
    if how.symmetric and how.method not in CUTS_BOTH_ENDS and not format.symmetric:
        return _both_sides(distribution, format, how)
    lo, hi = TABLE[how.method](distribution, format, how)
    return min(float(lo), 0.0), max(float(hi), 0.0)


def _both_sides(seen: Distribution, format: Format, how: Ranging) -> Range:
    """The range that a symmetric grid as wide would have. It has one code less, so that rounding up moves no scale."""
    lo, hi = TABLE[how.method](seen, replace(format, symmetric=True, strict=True, one_sided=False), how)
    reach = max(-float(lo), float(hi), 0.0)
    return -reach, reach


def _least_squares(seen: Distribution, format: Format, how: Ranging) -> Range:
    return power_of_two.min_mse(seen, format) if format.scale == "pow2" else min_mse(seen, format)


TABLE: dict[str, Method] = {
    "MinMax": lambda seen, format, how: minmax(seen),
    "Percentile": lambda seen, format, how: percentile(seen, how.percentile, how.symmetric),
    "Entropy": lambda seen, format, how: entropy(seen, how.bins, how.levels),
    "MinMSE": _least_squares,
    "Distribution": lambda seen, format, how: bell(seen, format),
    "LayerwisePercentile": lambda seen, format, how: best_percentile(
        seen, format, how.candidates, how.symmetric, how.metric
    ),
    "NonOverflow": lambda seen, format, how: minmax(seen),  # qparams takes the next power of two: nothing is clipped
    "tf": lambda seen, format, how: aimet.tf(seen, format),
    "tf_enhanced": lambda seen, format, how: aimet.tf_enhanced(seen, format),
    "tf_percentile": lambda seen, format, how: aimet.tf_percentile(seen, format, how.percentile),
}
"""What each method does, by the names in `METHODS`."""
