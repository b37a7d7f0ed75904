"""The quantizer: q = clamp(round_half_even(v / s) + z, lo, hi),   v̂ = (q − z) · s."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.formats import Format
from quark_onnx.core.plan import QParams

SMALLEST_SCALE = np.finfo(np.float32).tiny * 2**8
"""Below this a scale is no longer a normal number in products such as input scale · weight scale."""


def along(parameter: NDArray[Any], ndim: int, axis: int | None) -> NDArray[Any]:
    """A per-channel parameter shaped so that it broadcasts along `axis` of an array of rank `ndim`."""
    if axis is None or parameter.ndim == 0:
        return parameter
    shape = [1] * ndim
    shape[axis] = -1
    return parameter.reshape(shape)


def qparams(lo: NDArray[np.floating] | float, hi: NDArray[np.floating] | float, format: Format) -> QParams:
    """Scale and zero point for values in [lo, hi], one pair or one per channel.

    The range is widened to contain 0. A range of zero width (all values 0) gets scale 1: nothing can be said, and
    every value is exact. The scale is a float32 that is finite and normal.
    """
    low = np.minimum(np.asarray(lo, np.float64), 0.0)
    high = np.maximum(np.asarray(hi, np.float64), 0.0)
    if format.symmetric:
        reach = np.maximum(-low, high)
        scale = reach / (format.hi - format.middle)
    else:
        scale = (high - low) / (format.hi - format.lo)
    limit = np.finfo(np.float32).max
    rounded = np.where(scale == 0, 1.0, np.clip(scale, SMALLEST_SCALE, limit)).astype(np.float32)
    if format.symmetric:
        return QParams(rounded, np.full(rounded.shape, format.middle, np.int32))
    zero_point = np.clip(np.rint(format.lo - low / rounded.astype(np.float64)), format.lo, format.hi)
    return QParams(rounded, np.asarray(zero_point, np.int32))


def quantize(values: NDArray[np.floating], q: QParams, format: Format) -> NDArray[np.int32]:
    """Codes of `values`, the rounding that onnxruntime's QuantizeLinear does (float32 division, half to even)."""
    scale = along(q.scale, values.ndim, format.axis)
    zero_point = along(q.zero_point, values.ndim, format.axis)
    codes: NDArray[np.float32] = np.rint(values.astype(np.float32) / scale) + zero_point
    return np.clip(codes, format.lo, format.hi).astype(np.int32)


def dequantize(codes: NDArray[np.integer], q: QParams, format: Format) -> NDArray[np.float32]:
    """The values that codes stand for."""
    zero_point = along(q.zero_point, codes.ndim, format.axis)
    scale = along(q.scale, codes.ndim, format.axis)
    return np.asarray((codes - zero_point) * scale, np.float32)


def stored_codes(values: NDArray[np.floating], q: QParams, format: Format) -> NDArray[Any]:
    """Codes of an activation in the type that a model stores, as QuantizeLinear makes them: saturated at the type."""
    scale = along(q.scale, values.ndim, format.axis)
    limits = np.iinfo(format.dtype)
    codes: NDArray[Any] = np.clip(np.rint(values / scale) + q.zero_point, limits.min, limits.max)
    return codes.astype(format.dtype)
