"""Nodes that are to stay float, shielded from onnxruntime's CPU provider."""

from __future__ import annotations

from collections.abc import Collection

from quark_onnx.graph import Model, Node
from quark_onnx.graph.edit import new_node
from quark_onnx.graph.view import is_constant, is_op, sole_reader


def shield(quantized: Model, unfit: Collection[str] = ()) -> None:
    """Put a `Max` of one tensor, which changes nothing, before layers with a float weight that read a quantized one.

    Args:
        unfit: names of nodes whose integer kernel would fail: they are shielded from it likewise.

    Between a DequantizeLinear and a QuantizeLinear, with or without an activation, onnxruntime 1.31 quantizes the
    weight of a Conv, ConvTranspose or Gemm while it loads the model (`WeightBiasQuantization`): to int8 with one scale,
    whatever the reason was to leave the layer float; also of a Gemm that it made of a MatMul and the Add behind it. An
    Identity would not do: it is removed before that.
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
    return _restored(node) and is_constant(node.inputs[1])


def _restored(node: Node) -> bool:
    value = node.inputs[0]
    return value is not None and is_op(value.producer(), "DequantizeLinear")


def _becomes_gemm(node: Node) -> bool:
    return is_op(node, "MatMul") and is_op(sole_reader(node.outputs[0]), "Add")
