"""What a layer reads, sample by sample, in the float model and in the quantized one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Plan, Skip
from quark_onnx.engine.activation_walk import Frontier
from quark_onnx.engine.layers.tunable_layers import Unit
from quark_onnx.graph import Model
from quark_onnx.graph.large_weights import let_go
from quark_onnx.graph.view import constant
from quark_onnx.numerics.layer.im2col import ConvShape

Array = NDArray[Any]


class Sides(NamedTuple):
    """x in the float model, z in the quantized one (codes or floats, as the frontier has them); the convolution that
    is computed on each sample, None for a matrix."""

    x: list[Array]
    z: list[Array]
    shape: ConvShape | None


def sides(unit: Unit, frontier: Frontier, plan: Plan, most: int | None) -> Sides | Skip:
    """What counts of the samples that a layer reads, at most so many, empty ones left out; or why it cannot learn."""
    stores = frontier.read(unit.node, unit.data, plan)
    counting = ([part for i, a in enumerate(s) for part in frontier.counted(unit.data, i, a)] for s in stores)
    x, z = ([sample for part in parts for sample in unit.geometry.samples(part)] for parts in counting)
    if [s.shape for s in x] != [s.shape for s in z]:
        return Skip("its input has another shape in the quantized model")
    x, z = ([s for s in side if s.size][:most] for side in (x, z))
    if not x:
        return Skip("no data reaches it")
    shapes = {unit.geometry.shape(s) for s in x}
    if len(shapes) > 1:  # auto_pad on images of several sizes
        return Skip("its padding differs from sample to sample")
    return Sides(x, z, shapes.pop())


def float_of(model: Model, name: str) -> Array:
    """An initializer of the float model, a copy in float32; what is mapped of a file is let go of."""
    value = model.graph.initializers[name]
    array = constant(value)
    assert array is not None
    copied = array.astype(np.float32)
    let_go(value.const_value)
    return copied


def bias_rows(bias: Array, shape: tuple[int, ...]) -> Array:
    """A bias, one number per output or one for all, as (G, R)."""
    return np.broadcast_to(bias.reshape(-1), (shape[0] * shape[1],)).reshape(shape[:2])


def like_bias(rows: Array, bias: Array) -> Array:
    """The inverse of `bias_rows`, as a value of the plan: a bias that was one for all gets one number per output."""
    return rows.astype(np.float32).reshape(-1 if bias.size == 1 else bias.shape)
