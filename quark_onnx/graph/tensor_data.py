"""Constants whose data are not what type and shape say: the checker of onnx lets them pass, and readers stumble."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx_ir as ir

from quark_onnx.core.errors import ModelError, reason
from quark_onnx.graph.view import is_op

_VALUES = {"value", "sparse_value"} | {
    f"value_{kind}" for kind in ("int", "ints", "float", "floats", "string", "strings")
}


def check_constants(model: ir.Model) -> None:
    """Read every constant that is in the model itself once; nothing is kept. Initializers get their own type and shape.

    Raises:
        ModelError: one cannot be read, or has no value at all.
    """
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None and not value.is_graph_input():  # value_info may say otherwise
                value.type, value.shape = (
                    ir.TensorType(value.const_value.dtype),
                    ir.Shape(value.const_value.shape.numpy()),
                )
    for name, tensor in _constants(model):
        if isinstance(tensor, ir.ExternalTensor):
            continue
        try:
            tensor.numpy()
        except Exception as error:
            raise ModelError(
                f"the data of {name!r} are not {tensor.dtype.name} {list(tensor.shape)}, which it is said to be: "
                f"{reason(error)}; export the model again"
            ) from error


def _constants(model: ir.Model) -> Iterator[tuple[str, Any]]:
    functions = model.functions.values()
    bodies = (graph for function in functions for graph in (function.graph, *function.subgraphs()))
    for graph in (*model.graphs(), *bodies):
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.name or "", value.const_value
        for node in graph:
            if is_op(node, "Constant") and not _VALUES & node.attributes.keys():
                raise ModelError(f"the Constant {node.outputs[0].name!r} has no value; export the model again")
            for attribute in node.attributes.values():
                if attribute.is_ref():  # a function gets it where it is called
                    continue
                if attribute.type == ir.AttributeType.TENSOR:
                    yield node.outputs[0].name or "", attribute.value
                elif attribute.type == ir.AttributeType.TENSORS:
                    yield from ((node.outputs[0].name or "", tensor) for tensor in attribute.value)
