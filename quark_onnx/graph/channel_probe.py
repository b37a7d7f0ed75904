"""Models that compute statistics of their own tensors: what is fetched is a few numbers, not a feature map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from quark_onnx.graph.edit import add_constant, forget_names, new_node
from quark_onnx.graph.passes import remove_unused
from quark_onnx.graph.view import rank, shape

REDUCIBLE = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
AXES_ARE_INPUTS = 18  # the operator set from which ReduceMin, ReduceMax and ReduceMean read their axes from an input


class Reduced(NamedTuple):
    """What to compute: an operator, and whether of the squares."""

    op_type: str
    squared: bool = False


EXTREMES = (Reduced("ReduceMin"), Reduced("ReduceMax"))
MOMENTS = (Reduced("ReduceMean"), Reduced("ReduceMean", squared=True))

SIZE = Reduced("Size")
"""How many values the tensor has: the means of none are zeros."""

Kept = Mapping[tuple[str, int], tuple[str, ...]]


def with_channel_extremes(model: ir.Model, tensors: Sequence[str]) -> tuple[ir.Model, dict[str, tuple[str, ...]]]:
    """A copy that returns nothing but the minimum and the maximum along all axes but axis 1 of these tensors.

    Returns:
        The copy, and per tensor the names of its two outputs. Tensors that the model does not have, or whose type,
        rank or number of channels is unknown, are left out.
    """
    probed, names = _probed(model, [(tensor, 1) for tensor in tensors], EXTREMES, samples=False)
    return probed, {tensor: found for (tensor, _), found in names.items()}


def with_channel_moments(model: ir.Model, wanted: Sequence[tuple[str, int]]) -> tuple[ir.Model, Kept]:
    """A copy that returns nothing but the means of tensors, and of their squares, of every sample and channel.

    Args:
        wanted: tensors with their axis of channels, which may count from the end. Axis 0 is that of samples, unless it
            is the channels'.

    Returns:
        The copy, and per entry of `wanted` the names of its three outputs, as in `with_channel_extremes`: the last one
        is the number of values.
    """
    return _probed(model, wanted, (*MOMENTS, SIZE), samples=True)


def with_shapes(model: ir.Model, tensors: Sequence[str]) -> tuple[ir.Model, dict[str, str]]:
    """A copy that returns nothing but the shapes of these tensors, and per tensor the name of its output."""
    probed = model.clone()
    graph = probed.graph
    forget_names(graph)
    del graph.outputs[:]
    values = {value.name: value for value in (*graph.inputs, *(v for node in graph for v in node.outputs))}
    names = {}
    for tensor in reversed(tensors):  # onnxruntime begins with the last, and lets go of a tensor whose shape is read
        node = new_node(graph, "Shape", [values[tensor]], f"{tensor}_Shape", f"{tensor}_shape")
        node.outputs[0].type = ir.TensorType(ir.DataType.INT64)
        graph.append(node)
        graph.outputs.append(node.outputs[0])
        names[tensor] = node.outputs[0].name or ""
    remove_unused(probed)
    return probed, names


def _probed(
    model: ir.Model, wanted: Sequence[tuple[str, int]], what: Sequence[Reduced], *, samples: bool
) -> tuple[ir.Model, Kept]:
    probed = model.clone()
    graph = probed.graph
    forget_names(graph)
    del graph.outputs[:]
    values = {value.name: value for value in (*graph.inputs, *(v for node in graph for v in node.outputs))}
    names = {}
    for tensor, axis in dict.fromkeys(wanted):
        value = values.get(tensor)
        if value is not None and _has_channels(value, axis):
            kept = {axis % (rank(value) or 1), *([0] if samples else [])}
            outputs = [_reduced(probed, value, kept, one) for one in what]
            names[tensor, axis] = tuple(output.name or "" for output in outputs)
            graph.outputs.extend(outputs)
    remove_unused(probed)
    return probed, names


def _has_channels(value: ir.Value, axis: int) -> bool:
    dims = shape(value)
    known = dims is not None and len(dims) > 1 and -len(dims) <= axis < len(dims)
    return known and (dims or ())[axis] is not None and value.dtype in REDUCIBLE


def _reduced(model: ir.Model, value: ir.Value, kept: set[int], how: Reduced) -> ir.Value:
    graph, dims = model.graph, shape(value) or ()
    name = f"{value.name}_{how.op_type}{'_squared' * how.squared}"
    if how.squared:
        square = new_node(graph, "Mul", [value, value], f"{name}_Mul", f"{name}_Mul")
        square.outputs[0].type, square.outputs[0].shape = value.type, value.shape
        graph.append(square)
        value = square.outputs[0]
    axes = [axis for axis in range(len(dims)) if axis not in kept]
    if how is SIZE:
        return _sized(graph, value, name)
    inputs, attributes = [value], {"keepdims": 0, "axes": axes}
    if axes and model.opset_imports[""] >= AXES_ARE_INPUTS:
        inputs.append(add_constant(graph, np.asarray(attributes.pop("axes"), np.int64), f"{name}_axes"))
    node = new_node(graph, how.op_type if axes else "Identity", inputs, name, name, attributes if axes else {})
    node.outputs[0].type = value.type
    node.outputs[0].shape = ir.Shape([dims[axis] for axis in sorted(kept)])
    graph.append(node)
    return node.outputs[0]


def _sized(graph: ir.Graph, value: ir.Value, name: str) -> ir.Value:
    node = new_node(graph, "Size", [value], name, name)
    node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.INT64), ir.Shape([])
    graph.append(node)
    return node.outputs[0]
