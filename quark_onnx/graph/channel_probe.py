"""Models that compute statistics of their own tensors: what is fetched is a number per channel, not a feature map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from quark_onnx.graph.edit import add_constant, forget_names, new_node
from quark_onnx.graph.passes import remove_unused
from quark_onnx.graph.view import rank, shape

REDUCIBLE = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
AXES_ARE_INPUTS = 18  # the operator set from which ReduceMin and ReduceMax read their axes from an input


def with_channel_extremes(model: ir.Model, tensors: Sequence[str]) -> tuple[ir.Model, dict[str, tuple[str, str]]]:
    """A copy that returns nothing but the minimum and the maximum along all axes but axis 1 of these tensors.

    Returns:
        The copy, and per tensor the names of its two outputs. Tensors that the model does not have, or whose type,
        rank or number of channels is unknown, are left out.
    """
    probed = model.clone()
    graph = probed.graph
    forget_names(graph)
    del graph.outputs[:]
    values = {value.name: value for value in (*graph.inputs, *(v for node in graph for v in node.outputs))}
    names = {}
    for tensor in dict.fromkeys(tensors):
        value = values.get(tensor)
        if value is not None and _has_channels(value):
            low, high = (_reduced(probed, value, op) for op in ("ReduceMin", "ReduceMax"))
            names[tensor] = (low.name or "", high.name or "")
            graph.outputs.extend([low, high])
    remove_unused(probed)
    return probed, names


def _has_channels(value: ir.Value) -> bool:
    dims = shape(value)
    return dims is not None and len(dims) > 1 and dims[1] is not None and value.dtype in REDUCIBLE


def _reduced(model: ir.Model, value: ir.Value, op: str) -> ir.Value:
    graph = model.graph
    axes = [axis for axis in range(rank(value) or 0) if axis != 1]
    inputs, attributes = [value], {"keepdims": 0, "axes": axes}
    if model.opset_imports[""] >= AXES_ARE_INPUTS:
        inputs.append(add_constant(graph, np.asarray(attributes.pop("axes"), np.int64), f"{value.name}_axes"))
    node = new_node(graph, op, inputs, f"{value.name}_{op}", f"{value.name}_{op}", attributes)
    node.outputs[0].type = value.type
    node.outputs[0].shape = ir.Shape([(shape(value) or ())[1]])
    graph.append(node)
    return node.outputs[0]
