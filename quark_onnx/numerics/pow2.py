"""Power-of-two scales by squared error, as Quark's PowerOfTwoMethod.MinMSE finds them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from quark_onnx.core.formats import Format
from quark_onnx.numerics.quant import SMALLEST_SCALE, qparams
from quark_onnx.numerics.spread import Spread

AROUND = (-1, 0, 1, 2, 3)
"""Positions to try, from that of min-max: the scale doubled, kept, and divided by 2, 4 and 8."""


def min_mse(seen: Spread, format: Format) -> tuple[float, float]:
    """The range of the power-of-two scale with the least squared error of rounding and clipping; first of equals.

    The position −log2(scale) of min-max, rounded to nearest, is the start. The zero point is that of the format, or
    (asymmetric) the one that the scale asks for.
    """
    exact = qparams(seen.lo, seen.hi, replace(format, scale="float"))
    position = np.rint(-np.log2(np.float64(exact.scale)))
    scales = np.exp2(-(position + np.array(AROUND)))
    scales = np.clip(scales, 2.0 ** np.ceil(np.log2(SMALLEST_SCALE)), 2.0**127)
    if format.symmetric:
        zeros = np.broadcast_to(np.float64(exact.zero_point), scales.shape)
    else:
        zeros = np.clip(np.rint(format.lo - min(seen.lo, 0.0) / scales), format.lo, format.hi)
    rounding, clipping = seen.errors(scales, zeros, format.lo, format.hi)
    best = int(np.argmin(rounding + clipping))
    low, high = ((code - zeros[best]) * scales[best] for code in (format.lo, format.hi))
    return float(low), float(high)
