"""Nodes and biases that are to stay float, shielded from onnxruntime's CPU provider."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from quark_onnx.graph import Model, Node
from quark_onnx.graph.edit import new_node
from quark_onnx.graph.view import constant, input_at, is_constant, is_op, sole_reader
from quark_onnx.numerics.layer.integer_bias import LIMIT

WIDE = (np.dtype(np.uint16), np.dtype(np.int16))


def shield(quantized: Model, unfit: Collection[str] = ()) -> None:
    """Put a `Max` of one tensor, which changes nothing, before layers that read a quantized one and would be changed.

    Args:
        unfit: names of nodes whose integer kernel would fail: they are shielded from it likewise.

    Between a DequantizeLinear and a QuantizeLinear, with or without an activation, onnxruntime 1.31 quantizes while it
    loads the model (`WeightBiasQuantization`), also in a Gemm that it made of a MatMul and the Add behind it:

    - a float weight of a Conv, ConvTranspose or Gemm, to int8 with one scale, whatever the reason was to keep it;
    - a float bias, to int32 at input scale · weight scale, also where that is too fine for it to fit.

    An Identity would not do: it is removed before that.
    """
    graph = quantized.graph
    for node in [node for node in graph if _exposed(node) or (node.name in unfit and _restoring(node, 0))]:
        (value, *_) = node.inputs
        apart = new_node(graph, "Max", [value], f"{node.name}_float", f"{node.name}_input")
        graph.insert_before(node, apart)
        node.replace_input_with(0, apart.outputs[0])


def _exposed(node: Node) -> bool:
    if not is_op(node, "Conv", "ConvTranspose", "Gemm") and not _becomes_gemm(node):
        return False
    restored = _restoring(node, 0)
    return restored is not None and (is_constant(node.inputs[1]) or _bias_is_lost(node, restored))


def _bias_is_lost(node: Node, restored: Node) -> bool:
    """Whether codes of the float bias are too large; those of float16 go through float16, which ends at 65,504.

    What is added to a product is taken for a bias where it has one axis: a mask of scores has two.
    """
    weight = _restoring(node, 1)
    adder = sole_reader(node.outputs[0]) if is_op(node, "MatMul") else None
    added = node.inputs[2:] if adder is None else adder.inputs
    bias = next((array for array in map(constant, added) if array is not None), None)
    if weight is None or bias is None:
        return False
    sx, sw, zero = (constant(input_at(one, index)) for one, index in ((restored, 1), (weight, 1), (restored, 2)))
    if sx is None or sw is None or zero is None or (adder is not None and bias.ndim != 1):
        return False
    if bias.dtype == np.float16:
        return zero.dtype in WIDE
    return bool(np.abs(bias).max(initial=0) > LIMIT * float(sx.min()) * float(sw.min()))


def _restoring(node: Node, index: int) -> Node | None:
    """The DequantizeLinear that an input comes from."""
    value = node.inputs[index]
    producer = None if value is None else value.producer()
    return producer if is_op(producer, "DequantizeLinear") else None


def _becomes_gemm(node: Node) -> bool:
    return is_op(node, "MatMul") and is_op(sole_reader(node.outputs[0]), "Add")
