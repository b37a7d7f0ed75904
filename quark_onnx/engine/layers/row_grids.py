"""Between the plan's scales, one, one per channel or per block, and the (G, R) or (G, R, K) that numerics work with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Plan, QParams
from quark_onnx.engine.layers.matrix_geometry import Geometry
from quark_onnx.engine.layers.tunable_layers import Unit
from quark_onnx.graph import Node
from quark_onnx.numerics.layer.integer_bias import OwnGrid
from quark_onnx.numerics.quantizer import along, carrier
from quark_onnx.numerics.rounding.scale_search import FACTORS, FINE, POWERS
from quark_onnx.numerics.rounding.weight_grid import PER_CHANNEL, PER_ROW, PER_TENSOR, WeightGrid

Array = NDArray[Any]


def grid_of(q: QParams, format: Format, geometry: Geometry, shape: tuple[int, int, int]) -> WeightGrid:
    """The grid of a weight (G, R, K).

    Scales per channel are one per row of every group, or (grouped ConvTranspose) one per row for all groups.
    """
    groups, rows, inputs = shape
    run = safe_run(format, geometry, inputs)
    numbers = [np.asarray(a, np.float32) for a in (q.scale, q.zero_point)]
    if format.block is not None:
        scale, zero = (_turned(along(a, _stored(shape, format), format), format)[None] for a in numbers)
        return WeightGrid(scale, format.lo - zero, format.hi - zero, PER_CHANNEL, run, format.block)
    per_row = PER_CHANNEL if q.scale.size == groups * rows else PER_ROW
    shared = per_row if q.scale.ndim else PER_TENSOR
    scale, zero = (_by_row(a, shape[:2]) for a in numbers)
    return WeightGrid(scale, (format.lo - zero)[..., None], (format.hi - zero)[..., None], shared, run)


def safe_run(format: Format, geometry: Geometry, inputs: int) -> int:
    """How many columns of a row (K,) there are in a run inside which neighbours must be safe; 0: none must."""
    return {"": 0, "row": inputs, "tap": inputs // geometry.taps}[format.safe_pairs]


def rounded_rows(plan: Plan, unit: Unit, q: QParams) -> Array | None:
    """(G, R, K) codes of a weight less their zero point, where the plan has them."""
    found, format = plan.coded(unit.weight), plan.sites[unit.weight].format
    if found is None:
        return None
    zero = along(q.zero_point, found.codes.shape, format)
    return unit.geometry.rows((found.codes - zero).astype(np.float32))


def factors_for(format: Format) -> tuple[float, ...]:
    """Scales to try for a weight, as parts of the plan's; what they make is a scale of the format again."""
    if format.scale != "float":  # half of a float16 number is one, too
        return POWERS
    return FACTORS if format.axis is None else FINE


def all_factors(format: Format, count: int | None = None) -> tuple[float, ...]:
    """For a search whose only result is the scale (SeqMSE): k / count for every k, largest first.

    Without a count those of `factors_for`, and AIMET's twentieths. Powers of two have to stay so in either case.
    """
    found = factors_for(format)
    if format.scale != "float":
        return found
    shares = {i / (count or 20) for i in range(1, (count or 20) + 1)}
    return tuple(sorted(shares if count else {*found, *shares}, reverse=True))


def codes_of(plan: Plan, node: Node, tensor: str) -> QParams | None:
    """Scale and zero point of the codes that a node of the quantized model reads of an activation; None: floats.

    What is quantized at run time is a float up to there.
    """
    site = plan.sites.get(tensor)
    floats = site is None or site.role == "dynamic" or not plan.reads_codes(node.name or "", tensor)
    return None if floats else plan.qparams_of(tensor)


def bias_grid(plan: Plan, bias: str | None) -> OwnGrid | None:
    """The grid of a bias that has a scale of its own."""
    site = None if bias is None else plan.sites.get(bias)
    return None if site is None or site.format.bits == 32 else OwnGrid(plan.qparams_of(site.tensor), site.format)


def coded(codes: Array, scale: Array, q: QParams, format: Format) -> tuple[Array, Array]:
    """Codes (G, R, K) with the zero point added, and the scale in the shape of the plan's.

    Those of blocks are as narrow as their type, others int32.
    """
    whole = codes if codes.dtype.kind == "i" else np.rint(codes)
    if format.block is not None:
        zero = _turned(along(q.zero_point, _stored(codes.shape, format), format), format)[None]
        own = _turned(scale[0, :, :: format.block], format)
        narrow = np.add(whole, zero, dtype=np.int32, casting="unsafe").astype(carrier(format))  # of language models
        return narrow, np.ascontiguousarray(own, np.float32)
    zero = _by_row(q.zero_point, codes.shape[:2])[..., None]
    whole = np.add(whole, zero, dtype=np.int32, casting="unsafe")
    if q.scale.ndim == 0:
        return whole, scale[0, 0].astype(np.float32)
    return whole, (scale.reshape(-1) if q.scale.size == scale.size else scale[0]).astype(np.float32)


def _turned(matrix: Array, format: Format) -> Array:
    """Between a matrix with blocks as it is stored and its rows, either way: blocks go along the inputs of a row."""
    return matrix if format.axis == 1 else matrix.T


def _stored(shape: tuple[int, ...], format: Format) -> tuple[int, ...]:
    """The shape of a matrix (1, R, K) with blocks, as it is stored."""
    return shape[1:] if format.axis == 1 else shape[:0:-1]


def _by_row(parameter: Array, shape: tuple[int, int]) -> Array:
    if parameter.size == shape[0] * shape[1]:
        return parameter.reshape(shape)
    return np.broadcast_to(parameter, shape)
