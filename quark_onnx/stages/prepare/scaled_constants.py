"""New constants for a layer that swallows a scale k and a shift s per channel.

    after it:    k (W x + b) + s  =  (k W) x + (k b + s)
    before it:   W (k x + s) + b  =  (W k) x + (W s + b)

All is computed in float64; what is stored has the weight's own type, and is refused if it is not finite there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node
from quark_onnx.graph.edit import become, set_constant
from quark_onnx.graph.view import input_at, is_op
from quark_onnx.stages.prepare.affine_layer import Array, Layer, axes, group


class Folded(NamedTuple):
    """New constants for a layer, of the type they will be stored in; None is left as it is."""

    node: Node
    at: int
    weight: NDArray[Any] | None
    bias: NDArray[Any] | None


@np.errstate(all="ignore")  # what overflows is refused below
def after(layer: Layer, k: Array, s: Array) -> Folded | Skip:
    """The layer with k and s per output channel behind it; without a bias the new one is s alone."""
    weight = None if (k == 1).all() else layer.weight * _along(layer, k, axes(layer)[0])
    return _folded(layer, weight, s if layer.bias is None else layer.bias * k + s)


@np.errstate(all="ignore")
def before(layer: Layer, k: Array, s: Array) -> Folded | Skip:
    """The layer with k and s per input channel in front of it; without a bias s must be 0."""
    out, into = axes(layer)
    weight = layer.weight * _along(layer, k, into)
    if layer.bias is None:
        return _folded(layer, weight, None)
    sums: Array = (layer.weight * _along(layer, s, into)).sum(axis=tuple(a for a in range(weight.ndim) if a != out))
    return _folded(layer, weight, sums + layer.bias)


def _along(layer: Layer, k: Array, axis: int) -> Array:
    """One value per channel, shaped to multiply the weight.

    Axis 1 of a grouped convolution holds the channels of one group; axis 0 holds all, group after group.
    """
    weight, groups = layer.weight, group(layer.node)
    shape = [1] * weight.ndim
    shape[axis] = -1
    if axis != 1 or groups == 1:
        return k.reshape(shape)
    shape[0] = weight.shape[0]
    return np.repeat(k.reshape(groups, -1), weight.shape[0] // groups, axis=0).reshape(shape)


def per_channel(layer: Layer, array: NDArray[Any]) -> Array | Skip:
    """The constant as one value per output channel."""
    if array.ndim > 0:
        if layer.out is None or layer.rank is None or array.ndim > layer.rank:
            return Skip("the constant has more axes than the output, or its rank is unknown")
        shape = [1] * (layer.rank - array.ndim) + list(array.shape)
        if any(size != 1 for axis, size in enumerate(shape) if axis != layer.out):
            return Skip("the constant varies along another axis than that of output channels")
        if shape[layer.out] not in (1, layer.channels):
            return Skip("the constant widens the output")
    return np.broadcast_to(array.astype(np.float64).ravel(), layer.channels)


def _folded(layer: Layer, weight: Array | None, bias: Array | None) -> Folded | Skip:
    """The new constants in the layer's type; no bias is written where it is zero and there was none."""
    new_weight = None if weight is None else stored(weight, layer.weight.dtype)
    new_bias = None if bias is None else stored(bias, layer.weight.dtype)
    if isinstance(new_weight, Skip):
        return new_weight
    if isinstance(new_bias, Skip):
        return new_bias
    if new_bias is not None and input_at(layer.node, 2) is None and not new_bias.any():
        new_bias = None
    return Folded(layer.node, layer.at, new_weight, new_bias)


@np.errstate(all="ignore")
def stored(array: Array, dtype: np.dtype[Any]) -> NDArray[Any] | Skip:
    """The array in the type of the graph, unless a value does not fit."""
    narrow = array.astype(dtype)
    return narrow if np.isfinite(narrow).all() else Skip(f"a folded value is not finite in {dtype}")


def store(found: Folded) -> None:
    """Write the constants. A rank-2 MatMul that gets a bias becomes a Gemm of the same name."""
    node = found.node
    if found.weight is not None:
        set_constant(node, found.at, found.weight, f"{node.name}_weight")
    if found.bias is not None:
        if is_op(node, "MatMul"):
            become(node, "Gemm", node.inputs)
        set_constant(node, 2, found.bias, f"{node.name}_bias")
