"""Models of any size for the functions of onnx that take a protobuf, which ends at 2 GB: without their weights."""

from __future__ import annotations

import onnx
import onnx_ir as ir

SMALL = 1024  # elements: constants that decide about shapes (axes, scales, pads) are smaller
READABLE = (ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL)


def light_proto(model: ir.Model) -> onnx.ModelProto:
    """The model as a protobuf in which large initializers are inputs, behind the real ones."""
    graph = model.graph
    values = list(graph.initializers.values())
    inputs = len(graph.inputs)
    try:
        for value in values:
            if not _small(value):
                graph.initializers.pop(value.name or "")
                graph.inputs.append(value)
        return ir.to_proto(model)
    finally:  # as it was, the order of the initializers included
        while len(graph.inputs) > inputs:  # `del` of a slice would leave the values marked as inputs
            graph.inputs.pop()
        graph.initializers.clear()
        for value in values:
            graph.initializers.add(value)


def _small(value: ir.Value) -> bool:
    tensor = value.const_value
    return tensor is not None and tensor.size <= SMALL and tensor.dtype in READABLE
