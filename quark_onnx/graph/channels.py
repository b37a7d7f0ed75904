"""Channels: axis 1 of every activation, and how layers with a constant weight mix them.

The weight of Conv, ConvTranspose, Gemm or rank-2 MatMul is seen as blocks (groups, outputs, inputs, taps): group g
mixes its own inputs into its own outputs, and all channels are numbered group after group.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quark_onnx.core.plan import Skip
from quark_onnx.graph.view import constant, input_at, is_constant, is_float, is_op, rank, shape

RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


class Kernel(NamedTuple):
    """A layer's constant weight; `outputs` and `inputs` count the channels of all groups."""

    node: ir.Node
    value: ir.Value
    groups: int
    outputs: int
    inputs: int

    def blocks(self, weight: NDArray[Any]) -> NDArray[Any]:
        """The weight, or an array that broadcasts to it, as (groups, outputs, inputs, taps)."""
        if is_op(self.node, "Conv"):
            return weight.reshape(self.groups, self.outputs // self.groups, self.inputs // self.groups, -1)
        if is_op(self.node, "ConvTranspose"):
            turned = weight.reshape(self.groups, self.inputs // self.groups, self.outputs // self.groups, -1)
            return turned.swapaxes(1, 2)
        rows = weight if _transposed(self.node) else weight.T
        return rows.reshape(1, *rows.shape, 1)

    def unblocked(self, blocks: NDArray[Any]) -> NDArray[Any]:
        """(groups, outputs, inputs) in an array that broadcasts to the weight; in a single group 1 stands for all."""
        _, outputs, inputs = blocks.shape
        ones = (1,) * ((rank(self.value) or 2) - 2)
        if is_op(self.node, "Conv"):
            return blocks.reshape(-1, inputs, *ones)
        if is_op(self.node, "ConvTranspose"):
            return blocks.swapaxes(1, 2).reshape(-1, outputs, *ones)
        rows: NDArray[Any] = blocks[0]
        return rows if _transposed(self.node) else rows.T


def _transposed(node: ir.Node) -> bool:
    return is_op(node, "Gemm") and bool(node.attributes.get_int("transB"))


def kernel(node: ir.Node) -> Kernel | Skip:
    """The weight of a layer, which is one of `core.operators.LAYERS`, without reading it."""
    value = input_at(node, 1)
    if value is None or not is_constant(value) or not is_float(value):
        return Skip("the weight is not a constant of floats")
    dims = shape(value) or ()
    if len(dims) < 2 or not all(dims):
        return Skip("the weight is empty or a vector")
    size = [dim or 0 for dim in dims]
    if is_op(node, "Conv", "ConvTranspose"):
        groups = node.attributes.get_int("group", 1)
        if is_op(node, "Conv"):
            return Kernel(node, value, groups, size[0], size[1] * groups)
        return Kernel(node, value, groups, size[1] * groups, size[0])
    if rank(node.inputs[0]) != 2 or len(size) != 2 or node.attributes.get_int("transA"):
        return Skip("its input has no axis of channels")
    return Kernel(node, value, 1, *(size if _transposed(node) else size[::-1]))


def regrouped(node: ir.Node) -> int | None:
    """The number of channels behind one of `RESHAPES`, None where channels cannot be told from other axes.

    Axis 0 stays as it is, so in the order of storage a channel becomes a run of channels, or a run becomes a channel.
    """
    before, after = shape(input_at(node, 0)), shape(node.outputs[0])
    if before is None or after is None or min(len(before), len(after)) < 2:
        return None
    rest = [_width(node.outputs[0])] if len(after) == 2 else list(after[1:])
    if None in before[1:] or None in rest:
        return None
    same = math.prod(dim or 0 for dim in before[1:]) == math.prod(dim or 0 for dim in rest)
    return rest[0] if same else None


def _width(value: ir.Value) -> int | None:
    """The second of two axes, or what a layer that reads the value takes it for."""
    dims = shape(value) or ()
    if dims[1] is not None:
        return dims[1]
    readers = [kernel(use.node) for use in value.uses() if use.idx == 0 and is_op(use.node, "Gemm", "MatMul")]
    return next((reader.inputs for reader in readers if isinstance(reader, Kernel)), None)


def reduces_positions_only(node: ir.Node) -> bool:
    """Whether a reduction leaves axes 0 and 1 alone: its axes are known and all behind them."""
    ndim = rank(input_at(node, 0))
    attribute = node.attributes.get_ints("axes")
    axes = constant(input_at(node, 1)) if attribute is None else np.asarray(attribute)
    if ndim is None or axes is None or axes.size == 0:
        return False
    return bool(((axes + ndim * (axes < 0)) >= 2).all())
