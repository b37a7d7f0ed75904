"""A layer with a constant weight, read as y = W x + b with one b per output channel."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node
from quark_onnx.graph.view import constant, input_at, is_constant, is_float, is_op, rank

Array = NDArray[np.float64]


class Layer(NamedTuple):
    """A layer as found.

    at      input number of the weight
    weight  as stored in the graph: not yet float64, it may be gigabytes in a file
    bias    one value per output channel; None for a MatMul that cannot become a Gemm
    out     the output's axis of channels, None when the rank is unknown
    rank    of the output, None when unknown
    """

    node: Node
    at: int
    weight: NDArray[Any]
    bias: Array | None
    channels: int
    out: int | None
    rank: int | None


def read(node: Node) -> Layer | Skip:
    """The layer at `node`, which is one of `core.operators.LAYERS`, or why its constants cannot be changed."""
    at = 0 if is_op(node, "MatMul") and not is_constant(node.inputs[1]) else 1
    value = input_at(node, at)
    stored = constant(value)
    if stored is None or not is_float(value):
        return Skip("the weight is not a constant of floats")
    if stored.size == 0 or stored.ndim < 2:
        return Skip("the weight is empty or a vector")
    if is_op(node, "MatMul"):
        return _matmul(node, at, stored)
    if group(node) < 1 or stored.shape[0] % group(node):
        return Skip("its groups do not divide its channels")
    if is_op(node, "Gemm") and any(node.attributes.get_float(name, 1.0) != 1 for name in ("alpha", "beta")):
        return Skip("its alpha or beta is not 1")
    channels = _channels(node, stored)
    bias = _bias(node, channels)
    if isinstance(bias, Skip):
        return bias
    return Layer(node, at, stored, bias, channels, 1, 2 if is_op(node, "Gemm") else stored.ndim)


def _matmul(node: Node, at: int, weight: NDArray[Any]) -> Layer | Skip:
    """A constant right side has its output channels in columns, a constant left side in rows."""
    ranks = [rank(value) for value in node.inputs]
    if at == 0 and (ranks[1] is None or ranks[1] < 2):
        return Skip("the right side is a vector or of unknown rank")
    total = None if None in ranks else max(r for r in ranks if r is not None)
    if 1 in ranks:
        total = weight.ndim - 1
    back = 1 if at == 1 else 2
    bias = np.zeros(weight.shape[1]) if at == 1 and ranks == [2, 2] else None
    return Layer(node, at, weight, bias, weight.shape[-back], None if total is None else total - back, total)


def _channels(node: Node, weight: NDArray[Any]) -> int:
    if is_op(node, "ConvTranspose"):
        return int(weight.shape[1]) * group(node)
    return int(weight.shape[weight_axes(node, 1, weight.ndim)[0]])


def axes(layer: Layer) -> tuple[int, int]:
    """The weight's axes of output and of input channels."""
    return weight_axes(layer.node, layer.at, layer.weight.ndim)


def weight_axes(node: Node, at: int, ndim: int) -> tuple[int, int]:
    """The same for the weight at input `at` of a layer, when all that is known of it is its number of axes."""
    if is_op(node, "MatMul"):
        return (ndim - 1, ndim - 2) if at == 1 else (ndim - 2, ndim - 1)
    if is_op(node, "Gemm"):
        return (0, 1) if node.attributes.get_int("transB", 0) else (1, 0)
    return (1, 0) if is_op(node, "ConvTranspose") else (0, 1)


def group(node: Node) -> int:
    """The number of groups of a convolution."""
    return node.attributes.get_int("group", 1)


def pads(node: Node) -> bool:
    """Whether a convolution puts zeros around its input."""
    automatic = node.attributes.get_string("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")
    return automatic or any(node.attributes.get_ints("pads", ()))


def _bias(node: Node, channels: int) -> Array | Skip:
    value = input_at(node, 2)
    if value is None:
        return np.zeros(channels)
    bias = constant(value)
    if bias is None:
        return Skip("the bias is not constant")
    if bias.size != 1 and bias.shape not in ((channels,), (1, channels)):
        return Skip("the bias is not one value per output channel")
    return np.broadcast_to(bias.astype(np.float64).ravel(), channels)
