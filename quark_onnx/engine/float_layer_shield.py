"""Nodes that are to stay float, shielded from onnxruntime's CPU provider."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from quark_onnx.graph import Model, Node
from quark_onnx.graph.edit import new_node
from quark_onnx.graph.view import constant, input_at, is_constant, is_op, sole_reader

WIDE = (np.dtype(np.uint16), np.dtype(np.int16))


def shield(quantized: Model, unfit: Collection[str] = ()) -> None:
    """Put a `Max` of one tensor, which changes nothing, before layers with a float weight that read a quantized one.

    Args:
        unfit: names of nodes whose integer kernel would fail: they are shielded from it likewise.

    Between a DequantizeLinear and a QuantizeLinear, with or without an activation, onnxruntime 1.31 quantizes the
    weight of a Conv, ConvTranspose or Gemm while it loads the model (`WeightBiasQuantization`): to int8 with one scale,
    whatever the reason was to leave the layer float; also of a Gemm that it made of a MatMul and the Add behind it. An
    Identity would not do: it is removed before that. Of a float16 MatMul of 16-bit activations and an Add it quantizes
    the bias, whose codes are infinite in float16.
    """
    graph = quantized.graph
    for node in [node for node in graph if _exposed(node) or (node.name in unfit and _restored(node))]:
        (value, *_) = node.inputs
        apart = new_node(graph, "Max", [value], f"{node.name}_float", f"{node.name}_input")
        graph.insert_before(node, apart)
        node.replace_input_with(0, apart.outputs[0])


def _exposed(node: Node) -> bool:
    if not is_op(node, "Conv", "ConvTranspose", "Gemm") and not _becomes_gemm(node):
        return False
    value, weight, *_ = node.inputs
    restored = value.producer() if value is not None else None
    if restored is None or not is_op(restored, "DequantizeLinear"):
        return False
    return is_constant(weight) or (_becomes_gemm(node) and _is_wide_half(restored))


def _is_wide_half(restored: Node) -> bool:
    """Whether float16 numbers come of 16-bit codes: by the types of scale and zero point."""
    scale, zero = (constant(input_at(restored, index)) for index in (1, 2))
    return scale is not None and scale.dtype == np.float16 and zero is not None and zero.dtype in WIDE


def _restored(node: Node) -> bool:
    value = node.inputs[0]
    return value is not None and is_op(value.producer(), "DequantizeLinear")


def _becomes_gemm(node: Node) -> bool:
    return is_op(node, "MatMul") and is_op(sole_reader(node.outputs[0]), "Add")
