"""Between the plan's scales, one or one per channel, and the (G, R) that numerics work with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.formats import Format
from quark_onnx.core.plan import QParams
from quark_onnx.numerics.grid import PER_CHANNEL, PER_ROW, PER_TENSOR
from quark_onnx.numerics.tune import Grid

Array = NDArray[Any]


def grid_of(q: QParams, format: Format, shape: tuple[int, int]) -> Grid:
    """The grid of a weight of G groups and R rows.

    Scales per channel are one per row of every group, or (grouped ConvTranspose) one per row for all groups.
    """
    groups, rows = shape
    per_row = PER_CHANNEL if q.scale.size == groups * rows else PER_ROW
    shared = per_row if q.scale.ndim else PER_TENSOR
    scale, zero = (_spread(np.asarray(a, np.float32), shape) for a in (q.scale, q.zero_point))
    return Grid(scale, (format.lo - zero)[..., None], (format.hi - zero)[..., None], shared)


def coded(codes: Array, scale: Array, q: QParams, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Codes (G, R, K) with the zero point added, and the scale in the shape of the plan's."""
    zero = _spread(np.asarray(q.zero_point, np.float32), shape)
    whole = np.rint(codes + zero[..., None]).astype(np.int32)
    if q.scale.ndim == 0:
        return whole, scale[0, 0].astype(np.float32)
    return whole, (scale.reshape(-1) if q.scale.size == scale.size else scale[0]).astype(np.float32)


def _spread(parameter: Array, shape: tuple[int, int]) -> Array:
    if parameter.size == shape[0] * shape[1]:
        return parameter.reshape(shape)
    return np.broadcast_to(parameter, shape)
