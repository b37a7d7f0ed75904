"""The range methods by name: what was seen of a tensor, its format and the settings in, (lo, hi) out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.formats import Format
from quark_onnx.core.ranging import CUTS_BOTH_ENDS, METHODS, Ranging
from quark_onnx.numerics import aimet, pow2
from quark_onnx.numerics.observers import Statistics
from quark_onnx.numerics.ranges import minmax, percentile
from quark_onnx.numerics.search import bell, best_percentile, entropy, min_mse
from quark_onnx.numerics.spread import Spread

Range = tuple[float, float]
Method = Callable[[Spread, Format, Ranging], Range]


def find_range(seen: Spread | Statistics, format: Format, how: Ranging) -> Range:
    """The range that a method takes, such that `qparams(lo, hi, format)` is its scale and zero point.

    It is finite and contains 0, and is (0, 0) where nothing but zeros, or nothing finite, was seen. It depends on the
    statistics alone, and those not on how the data were split or in which order they came.

    Raises:
        ConfigError: there is no such method.
    """
    if how.method not in TABLE:
        raise ConfigError(f"unknown range method {how.method!r}{nearest(how.method, tuple(METHODS))}")
    spread = seen if isinstance(seen, Spread) else Spread.of(seen)
    if not spread.low.size or spread.lo == spread.hi == 0:
        return min(spread.lo, 0.0), max(spread.hi, 0.0)
    if how.symmetric and how.method not in CUTS_BOTH_ENDS and not format.symmetric:
        return _both_sides(spread, format, how)
    lo, hi = TABLE[how.method](spread, format, how)
    return min(float(lo), 0.0), max(float(hi), 0.0)


def _both_sides(seen: Spread, format: Format, how: Ranging) -> Range:
    """The range that a symmetric grid as wide would have. It has one code less, so that rounding up moves no scale."""
    lo, hi = TABLE[how.method](seen, replace(format, symmetric=True, strict=True, one_sided=False), how)
    reach = max(-float(lo), float(hi), 0.0)
    return -reach, reach


def _least_squares(seen: Spread, format: Format, how: Ranging) -> Range:
    return pow2.min_mse(seen, format) if format.scale == "pow2" else min_mse(seen, format)


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
