"""MinMSE: the range of least squared rounding and clipping error."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.number_formats import Format
from quark_onnx.numerics.quantizer import qparams
from quark_onnx.numerics.ranges.distribution import Distribution

Floats = NDArray[np.float64]

Range = tuple[float, float]


def squared_error(seen: Distribution, format: Format, lo: Floats, hi: Floats) -> Floats:
    """(k,) sums of squared error of the grids that `qparams` makes of k ranges."""
    q = qparams(lo, hi, format)
    rounding, clipping = seen.errors(q.scale, q.zero_point, format.lo, format.hi)
    return rounding + clipping


def min_mse(seen: Distribution, format: Format) -> Range:
    """The range with the least sum of squared rounding and clipping errors, within what was seen.

    Symmetric formats have one threshold on |x|, asymmetric ones have both ends free. Candidates are fractions
    2^(−j/n) of the ends; with rounding errors of step²/12 the sum is convex in both ends and a zoom finds its minimum.
    At the minimum Σ(x − end) over the clipped values is (hi − lo)·count / (12·steps²), and the largest value is in that
    sum: this tells how low a fraction can be best. One octave is added for what that model leaves out. MinMax is among
    the candidates, and wins ties.
    """
    steps = format.hi - format.lo
    octaves = 1 + math.log2(1 + seen.count / (3 * steps**2 if format.symmetric else 12 * steps**2))
    if format.symmetric:
        return _zoom_one(seen, format, octaves)
    return _zoom_two(seen, format, octaves)


def _zoom_one(seen: Distribution, format: Format, octaves: float) -> Range:
    """One threshold on |x|: 16 candidates an octave, then finer around the best."""

    def ends(down: Floats) -> tuple[Floats, Floats]:
        cut = max(-seen.lo, seen.hi) * 2.0**-down
        return np.maximum(seen.lo, -cut), np.minimum(seen.hi, cut)

    down = np.arange(0, octaves + 1 / 16, 1 / 16)
    for finer in (1 / 128, 1 / 1024, None):
        lo, hi = ends(down)
        best = int(np.argmin(squared_error(seen, format, lo, hi)))
        if finer:
            down = _around(down[best], finer, 8)
    return float(lo[best]), float(hi[best])


def _zoom_two(seen: Distribution, format: Format, octaves: float) -> Range:
    """Both ends: 2 candidates an octave and end, then finer around the best pair."""
    low, high = min(seen.lo, 0.0), max(seen.hi, 0.0)
    down = np.arange(0, octaves + 1 / 2, 1 / 2)
    lows, highs = (down if end else down[:1] for end in (low, high))
    for finer in (1 / 8, 1 / 32, 1 / 128, None):
        lo, hi = (grid.ravel() for grid in np.meshgrid(low * 2.0**-lows, high * 2.0**-highs, indexing="ij"))
        best = int(np.argmin(squared_error(seen, format, lo, hi)))
        i, j = divmod(best, highs.size)
        if finer:
            lows = _around(lows[i], finer, 4) if low else lows
            highs = _around(highs[j], finer, 4) if high else highs
    return float(lo[best]), float(hi[best])


def _around(centre: float, step: float, each: int) -> Floats:
    """Exponents around the best one, itself first, so that it wins ties; none beyond what was seen."""
    offsets = np.arange(-each, each + 1) * step
    near = centre + np.append(0.0, offsets[offsets != 0])
    return np.asarray(near[near >= 0])
