"""What cannot be quantized whatever the user wants: not ours, not float, not data."""

from __future__ import annotations

import math
from collections.abc import Mapping

from quark_onnx.core.operators import ATTENTION, CONTROL_FLOW, RANDOM, SHAPE_OPS, Op
from quark_onnx.core.settings.targets import Target
from quark_onnx.graph import Graph, Node, Value
from quark_onnx.graph.integer_nodes import is_integer
from quark_onnx.graph.view import input_at, is_constant, is_op, numpy_dtype, shape

AT_LOAD = "computed from constants that are smaller: onnxruntime does it once, while it loads the model"

WHOLE = "multiplies activations with each other: one kernel in float is faster than integer products and quantizers"

ALREADY = "works on integers already: it is left as it is"


def why_exempt(node: Node, shape_values: set[Value], target: Target) -> str | None:
    """Why this node has to stay float, or None."""
    if is_op(node, *CONTROL_FLOW):
        return "control flow: what it computes is computed in its bodies"
    if is_integer(node):
        return ALREADY
    if target.on_cpu and _title(node) in ATTENTION:
        return WHOLE
    if not is_op(node, *target.ops):
        return f"{_title(node)} is not in the operator table of the {target.title} target"
    if any(value in shape_values for value in node.outputs):
        return "computes shapes or indices, not data"
    if is_op(node, "Identity") and node.outputs[0].is_graph_output():
        return "gives a graph output its name"
    values = data_inputs(node, target.ops[node.op_type])
    if not values:
        return "has no data input"
    for value in (*values, node.outputs[0]):
        dtype = numpy_dtype(value)
        if dtype is None:
            return f"the type of {value.name!r} is unknown"
        if dtype != "float32":
            way = ": convert the model to float32" if dtype == "float64" else ""
            return f"{value.name!r} holds {dtype}; only float32 is quantized{way}"
        if 0 in (shape(value) or ()):
            return f"{value.name!r} is empty"
    return None


def _title(node: Node) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def data_inputs(node: Node, row: Op) -> list[Value]:
    """The inputs that carry activations or elementwise constants."""
    indices = range(len(node.inputs)) if row.data is None else row.data
    if row.kind == "layer":
        indices = (0,)
    return [value for value in (input_at(node, i) for i in indices) if value is not None]


def shape_values(graph: Graph, ops: Mapping[str, Op]) -> set[Value]:
    """Values computed from shapes and constants alone; where values are only moved, indices and sizes do not count."""
    found: set[Value] = set()
    for node in graph:
        moves = is_op(node, *ops) and ops[node.op_type].kind == "same"
        inputs = data_inputs(node, ops[node.op_type]) if moves else node.inputs
        varying = [value for value in inputs if value is not None and not is_constant(value)]
        if is_op(node, *CONTROL_FLOW):  # what decides is an input; what is computed comes from the bodies
            continue
        if is_op(node, *SHAPE_OPS) or (varying and all(value in found for value in varying)):
            found.update(node.outputs)
    return found


def enlarged_constants(graph: Graph) -> set[Value]:
    """Values that are computed from constants alone and larger than these, and what is computed from such.

    Quantizers inside such a chain would keep onnxruntime from computing it while it loads the model.
    """
    found: set[Value] = set()
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        if not all(value in found or is_constant(value) for value in inputs) or is_op(node, *CONTROL_FLOW, *RANDOM):
            continue
        if found.intersection(inputs) or _bytes(node.outputs[0]) > sum(map(_bytes, inputs)) > 0:
            found.update(node.outputs)
    return found


def _bytes(value: Value) -> int:
    """Bytes of a value of known shape and type, else 0."""
    dims, dtype = shape(value), numpy_dtype(value)
    if dims is None or dtype is None:
        return 0
    return math.prod(dim or 0 for dim in dims) * dtype.itemsize
