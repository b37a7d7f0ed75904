"""Reading a graph: constants, readers, types. Nothing here edits."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)


def is_constant(value: ir.Value | None) -> bool:
    """Whether the value is an initializer that no caller can override."""
    return value is not None and value.is_initializer() and not value.is_graph_input() and value.const_value is not None


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The array behind an initializer that no caller can override, or None. It may have to be decoded or read."""
    if value is None or value.const_value is None or not is_constant(value):
        return None
    return value.const_value.numpy()


def constant_tensor(value: ir.Value | None) -> Any:
    """The tensor behind such an initializer, of which nothing is read or decoded; None for any other value."""
    return value.const_value if value is not None and is_constant(value) else None


def constant_values(model: ir.Model) -> set[ir.Value]:
    """The constants of the main graph, and all that is computed of nothing else."""
    found = {value for value in model.graph.initializers.values() if is_constant(value)}
    for node in model.graph:
        read = {value for value in node.inputs if value is not None}
        if found.issuperset(read) if read else is_op(node, "Constant"):
            found.update(node.outputs)
    return found


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """Input number `index`, None when it is absent."""
    return node.inputs[index] if index < len(node.inputs) else None


def sole_reader(value: ir.Value) -> ir.Node | None:
    """The one node of the same graph that reads `value`; None for several, none, or a graph output."""
    uses = tuple(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    node = uses[0].node
    producer = value.producer()
    return node if producer is None or node.graph is producer.graph else None


def can_bypass(node: ir.Node) -> bool:
    """Whether input 0 can stand for output 0, be that a graph output: then the input must be free to take its name."""
    value = input_at(node, 0)
    if value is None or any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return False
    if not node.outputs[0].is_graph_output():
        return True
    producer = value.producer()
    return producer is not None and producer.graph is node.graph and not value.is_graph_output()


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether the node is one of these operators of the standard domain."""
    return node is not None and node.domain in ("", "ai.onnx") and node.op_type in op_types


def is_float(value: ir.Value | None) -> bool:
    """Whether the value is known to be a tensor of floating-point numbers."""
    return value is not None and value.dtype in FLOATS and isinstance(value.type, ir.TensorType)


def rank(value: ir.Value | None) -> int | None:
    """Number of axes, None when unknown."""
    return None if value is None or value.shape is None else len(value.shape)


def shape(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """Dimensions, None for a symbolic one; None when the rank is unknown."""
    if value is None or value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else None for dim in value.shape)


def same_first(one: ir.Value | None, other: ir.Value | None) -> bool:
    """Whether the first dimensions of both are known to be the same number, or go by the same name."""
    if one is None or other is None or not one.shape or not other.shape:
        return False
    a, b = one.shape[0], other.shape[0]
    return a == b and (isinstance(a, int) or a.value is not None)


def numpy_dtype(value: ir.Value) -> np.dtype[Any] | None:
    """The numpy type of a tensor's elements; object for strings; None when unknown, and of a sequence or optional."""
    if value.dtype in (None, ir.DataType.UNDEFINED) or not isinstance(value.type, ir.TensorType):
        return None
    return np.dtype(object) if value.dtype == ir.DataType.STRING else np.dtype(value.dtype.numpy())


def output_names(model: ir.Model) -> list[str]:
    """Names of the model's outputs; one that is returned twice is named once."""
    return list(dict.fromkeys(value.name or "" for value in model.graph.outputs))


def computes_in(model: ir.Model, dtype: str) -> bool:
    """Whether an input or a constant of the model is of this numpy type."""
    return any(numpy_dtype(value) == dtype for value in (*model.graph.inputs, *model.graph.initializers.values()))
