"""Formats of weights and biases: scales per tensor, channel or block, and the width of the bias."""

from __future__ import annotations

from dataclasses import replace

from quark_onnx.core.number_formats import Format
from quark_onnx.core.operators import Op
from quark_onnx.graph import Node, Value
from quark_onnx.graph.view import constant, rank, shape
from quark_onnx.stages.place.site_request import Context


def weight_axis(node: Node, row: Op) -> int:
    """The axis of a weight's output channels."""
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
    return 0 if transposed else row.weight_axis


def output_channels(node: Node, row: Op, weight: Value) -> int | None:
    """Number of output channels."""
    dims = shape(weight) or ()
    axis = weight_axis(node, row)
    groups = node.attributes.get_int("group", 1) if node.op_type == "ConvTranspose" else 1
    size = dims[axis]
    return None if size is None else size * groups


def row_length(value: Value) -> int:
    """Number of elements of a constant that is one row, or a single number; 0 of any other."""
    array = constant(value)
    return 0 if array is None or array.shape[-1:] not in ((), (array.size,)) else int(array.size)


def weight_format(context: Context, node: Node, weight: Value, axis: int | None) -> Format:
    """Blocks along the input axis where they are asked for and there is one, else scales as configured."""
    config = context.config
    size = config.option("BlockSize")
    across = input_axis(node, weight) if size else None
    if across is None:
        return replace(config.weight, axis=axis if config.per_channel else None)
    return replace(config.weight, axis=across, block=size)


def input_axis(node: Node, weight: Value) -> int | None:
    """The axis of a matrix that a product sums over; None for all other weights."""
    if node.op_type == "Gemm":
        return 1 if node.attributes.get_int("transB", 0) == 1 else 0
    if node.op_type == "MatMul" and rank(weight) == 2:
        return 0 if node.inputs[1] is weight else 1
    return None


def bias_format(context: Context, weight: Format) -> Format | None:
    """None where the bias stays float: so configured, or there is no scale per output that int32 codes could count in.

    The int32 accumulator has a scale per channel if the weight has; narrower biases have one of their own.
    """
    bits, plain = context.config.bias_bits, context.config.weight
    if bits is None or weight.block:
        return None
    if bits == 32:
        return Format(32, True, True, None if weight.axis is None else 0)
    return Format(bits, True, True, scale=plain.scale, strict=plain.strict)
