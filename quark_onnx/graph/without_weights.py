"""Models of any size for the functions of onnx that take a protobuf, which ends at 2 GB: without their weights.

`onnx.checker` is one of them: here is what it says.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from quark_onnx.core.errors import reason

SMALL = 1024  # elements: constants that decide about shapes (axes, scales, pads) are smaller
READABLE = (ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL)


def light_proto(model: ir.Model) -> onnx.ModelProto:
    """The model as a protobuf in which large initializers are inputs, behind the real ones, and none is in a file."""
    graph = model.graph
    held = [(value, value.const_value, value.type, value.shape) for value in graph.initializers.values()]
    inputs = len(graph.inputs)
    try:
        for value, tensor, _, _ in held:
            if tensor is None or tensor.size > SMALL or tensor.dtype not in READABLE:
                graph.initializers.pop(value.name or "")
                if not value.is_graph_input():
                    graph.inputs.append(value)
                if tensor is not None:  # an input has to say what it is
                    value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
            elif isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
        return ir.to_proto(model)
    finally:  # as it was, the order of the initializers included
        graph.inputs[inputs:] = []  # not del, which would leave them marked as inputs
        graph.initializers.clear()
        for value, tensor, kind, shape in held:
            value.const_value, value.type, value.shape = tensor, kind, shape
            graph.initializers.add(value)


def complaint(model: ir.Model) -> str | None:
    """What `onnx.checker` has against the model, its large weights left out; onnxruntime may run it all the same."""
    try:
        return refusal(light_proto(model))
    except Exception as error:  # the IR takes what it cannot write
        return reason(error)


def refusal(proto: onnx.ModelProto) -> str | None:
    """What `onnx.checker` has against a protobuf."""
    try:
        onnx.checker.check_model(proto)
    except Exception as error:  # not only its own ValidationError
        return reason(error)
    return None
