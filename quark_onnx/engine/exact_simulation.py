"""A QDQ model computed as AIMET's simulator computes it, to the bit: ties are rounded up, nothing is fused.

    QuantizeLinear → DequantizeLinear   becomes   (clamp(⌊v / s + (z − lo + ½)⌋, 0, hi − lo) − (z − lo)) · s

in float32, as `quantizer.quantize_half_up` does. Both differ at ties only, and below a strict grid, which leaves out
the lowest code of its type. But pixels of 8 bits are often ties in all their values, and in a network of many layers a
code that differs changes many others. Run it without onnxruntime's optimizations, which add up products in another
order. It takes two to four times as long as the fast simulation.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from quark_onnx.engine.compare import quantized_activations
from quark_onnx.graph import Graph, Model, Node, io
from quark_onnx.graph.edit import add_constant, new_node, remove, take_over
from quark_onnx.graph.view import constant, is_op


def exact(quantized: Model, lowest: Mapping[str, int] | None = None) -> Model:
    """A copy of a model that `apply` made with the quantizers of its activations written out; scales per tensor.

    Args:
        lowest: quantized tensor → the lowest code of its grid, where it is not that of the type.
    """
    model = io.copy(quantized)
    tensors = {found.quantizer: tensor for tensor, found in quantized_activations(model).items()}
    for restore in [node for node in model.graph if is_op(node, "DequantizeLinear")]:
        quantize = None if restore.inputs[0] is None else restore.inputs[0].producer()
        if quantize is not None and is_op(quantize, "QuantizeLinear"):
            _write_out(model.graph, quantize, restore, (lowest or {}).get(tensors.get(quantize, "")))
    return model


def _write_out(graph: Graph, quantize: Node, restore: Node, lowest: int | None) -> None:
    value, scale = quantize.inputs[0], quantize.inputs[1]
    zero = constant(quantize.inputs[2])
    assert value is not None and scale is not None and zero is not None
    name, info = value.name or "", np.iinfo(zero.dtype)
    first = info.min if lowest is None else lowest
    above = (zero.astype(np.int32) - first).astype(np.float32)
    steps = [
        ("Div", scale),
        ("Add", add_constant(graph, above + np.float32(0.5), f"{name}_half_up")),
        ("Floor", None),
        ("Max", add_constant(graph, np.float32(0), f"{name}_lowest")),
        ("Min", add_constant(graph, np.float32(info.max - first), f"{name}_highest")),
        ("Sub", add_constant(graph, above, f"{name}_zero")),
        ("Mul", scale),
    ]
    for op_type, operand in steps:
        inputs = [value] if operand is None else [value, operand]
        node = new_node(graph, op_type, inputs, f"{name}_{op_type}", f"{name}_{op_type}")
        graph.insert_before(restore, node)
        value = node.outputs[0]
    take_over(restore.outputs[0], value)
    remove(restore)
    if not quantize.outputs[0].uses():
        remove(quantize)
