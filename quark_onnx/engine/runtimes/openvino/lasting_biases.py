"""Biases for convolutions that have none, without which OpenVINO's CPU plugin loses what they compute.

Where a dimension is open, and several nodes read an integer convolution that ends with its scales, one of them reads
zeros (2026.4, each instruction set; a detector with squeeze and excite falls from 22 dB to 9). What is added behind the
scales, or any function, keeps that from happening. Zeros would be dropped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.engine.runtimes.openvino.reasons import codes_of
from quark_onnx.graph import Model, Node, Value
from quark_onnx.graph.edit import set_constant
from quark_onnx.graph.view import constant, input_at, is_constant, is_op, shape

LASTING = np.float32(1e-30)
"""What changes no sum but that of nothing, and is no zero."""


def with_lasting_biases(quantized: Model) -> None:
    """Every integer convolution without a bias, or with zeros for one, that needs one gets it, in place."""
    if all(None not in (shape(value) or (None,)) for value in quantized.graph.inputs):
        return
    for node in quantized.graph.all_nodes():
        if is_op(node, "Conv", "ConvTranspose") and not _has_bias(node) and _read_by_several(node.outputs[0]):
            weight = _codes(input_at(node, 1))
            if weight is not None and codes_of(node.inputs[0]) is not None:
                set_constant(node, 2, np.full(_channels(node, weight), LASTING), f"{node.name}_bias")


def _has_bias(node: Node) -> bool:
    bias = input_at(node, 2)
    array = constant(bias)
    return bias is not None and (array is None or bool(array.any()))


def _codes(value: Value | None) -> NDArray[Any] | None:
    """What a weight is dequantized from."""
    node = None if value is None else value.producer()
    return constant(input_at(node, 0)) if node is not None and is_op(node, "DequantizeLinear") else None


def _channels(node: Node, weight: NDArray[Any]) -> int:
    """Of the output."""
    return int(weight.shape[0] if is_op(node, "Conv") else weight.shape[1] * node.attributes.get_int("group", 1))


def _read_by_several(value: Value) -> bool:
    """Whether several read the value, which factors may scale."""
    uses = list(value.uses())
    if len(uses) + value.is_graph_output() > 1:
        return True
    scaled = [use.node for use in uses if is_op(use.node, "Mul", "Div") and any(map(is_constant, use.node.inputs))]
    return any(_read_by_several(node.outputs[0]) for node in scaled)
