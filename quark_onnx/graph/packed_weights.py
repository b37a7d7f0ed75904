"""Weights that a model stores as integers: floats while it is worked on, integers again where they stay as they are.

    DequantizeLinear(codes, scale, zero point)  →  a constant that remembers them  →  DequantizeLinear(codes, …)

Whoever changes the numbers makes another tensor, which remembers nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from quark_onnx.graph.edit import add_constant, become_constants, new_node, read_instead
from quark_onnx.graph.large_weights import spilled
from quark_onnx.graph.view import constant_tensor

_PACKED = "quark_onnx.packed"  # the meta of a tensor


class _Packed(NamedTuple):
    """What a DequantizeLinear has: tensors that it reads, and attributes."""

    tensors: tuple[Any, ...]
    attributes: dict[str, ir.Attr]

    def part(self, index: int, ends: Sequence[int], axis: int) -> _Packed:
        """That of a part. Parameters along the axis that is cut are cut with it."""
        codes = self.tensors[0].numpy()
        along = self.attributes["axis"].as_int() if "axis" in self.attributes else 1
        cut = along % max(codes.ndim, 1) == axis % codes.ndim
        rest = [
            tensor
            if tensor is None or tensor.size == 1 or not cut
            else ir.tensor(np.split(tensor.numpy(), ends)[index])
            for tensor in self.tensors[1:]
        ]
        return _Packed((ir.tensor(np.split(codes, ends, axis)[index]), *rest), self.attributes)


def unpack(node: ir.Node, array: Any) -> None:
    """The array, which the node makes of constants, takes its place as a constant."""
    tensors = tuple(constant_tensor(value) for value in node.inputs)
    (value,) = become_constants(node, [spilled(array)])
    if node.op_type == "DequantizeLinear" and value.const_value is not None:
        value.const_value.meta[_PACKED] = _Packed(tensors, dict(node.attributes))


def split(node: ir.Node, ends: Sequence[int], axis: int) -> None:
    """Parts of a constant, cut at these places, take the place of the node; parts of integers are integers, too."""
    whole = constant_tensor(node.inputs[0])
    packed = whole.meta.get(_PACKED)
    for part, value in enumerate(become_constants(node, np.split(whole.numpy(), ends, axis))):
        if packed is not None and "block_size" not in packed.attributes and value.const_value is not None:
            value.const_value.meta[_PACKED] = packed.part(part, ends, axis)


def repack(model: ir.Model) -> None:
    """Floats that are what they were unpacked to are stored as integers again."""
    graph = model.graph
    for name, value in list(graph.initializers.items()):
        packed = None if value.const_value is None else value.const_value.meta.get(_PACKED)
        if packed is None or value.is_graph_output() or not value.uses():
            continue
        names = [f"{name}_{part}" for part in ("codes", "scale", "zero_point")]
        inputs = [
            None if tensor is None else add_constant(graph, tensor.numpy(), hint, tensor.dtype.name.lower())
            for tensor, hint in zip(packed.tensors, names, strict=False)
        ]
        for given in filter(None, inputs):
            given.type, given.shape = None, None  # in a file they cost as much as nodes do
        node = new_node(graph, "DequantizeLinear", inputs, f"{name}_DequantizeLinear", f"{name}_values")
        node.attributes.update(packed.attributes)
        graph.insert_before(graph[0], node)
        read_instead(value, node.outputs[0], keep=[node])
        graph.initializers.pop(name)
