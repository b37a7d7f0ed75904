"""float16 models as float32 ones, so that all stages work in float32 and the result can go back afterwards.

    x₁₆ → Conv₁₆ → Cast(float32) → Softmax₃₂ → y₃₂     becomes     x₃₂ → Conv₃₂ → Softmax₃₂ → y₃₂

Every float16 number is a float32 number: weights stay what they were. What is no longer done is the rounding of
activations to float16 between operators.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from quark_onnx.graph.edit import bypass
from quark_onnx.graph.element_types import (
    INNER_TYPES,
    RESULT_TYPES,
    converted,
    element_type,
    holds_type,
    infer_types,
    names_type,
    retype_attributes,
    retyped,
)
from quark_onnx.graph.io import copy
from quark_onnx.graph.passes import lift_constants, name_nodes
from quark_onnx.graph.view import can_bypass, input_at, is_op

HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT
STANDARD = ("", "ai.onnx")
TYPES = RESULT_TYPES + INNER_TYPES


@dataclass(frozen=True, eq=False)
class Widened:
    """A float32 model, and what of it was float16.

    interface  inputs and outputs that were float16
    wide       nodes that compute in float32: they did all along, or a runtime needs it
    """

    model: ir.Model
    interface: frozenset[str]
    wide: frozenset[str]


def to_float32(model: ir.Model) -> Widened | None:
    """The model with float32 for float16 everywhere, bodies of control flow included; None: there is no float16 in it.

    Functions are inlined and all nodes named. `model` is left as it is.

    Raises:
        ModelError: a function cannot be inlined.
    """
    if not _has_half(model):
        return None
    interface = frozenset(v.name or "" for v in (*model.graph.inputs, *model.graph.outputs) if v.dtype == HALF)
    twin = copy(model)
    lift_constants(twin)
    name_nodes(twin)
    infer_types(twin)
    wide = frozenset(node.name or "" for node in twin.graph if _computes_in_float(node))
    for graph in _graphs(twin):
        _widen(graph)
    for graph in _graphs(twin):
        _drop_casts(graph)
    return Widened(twin, interface, wide)


def _graphs(model: ir.Model) -> list[ir.Graph]:
    return [model.graph, *(graph for graph in model.graphs() if graph is not model.graph)]


def _has_half(model: ir.Model) -> bool:
    """Whether any weight, input, output, or attribute is float16."""
    graphs = [*_graphs(model), *(function.graph for function in model.functions.values())]
    for graph in graphs:
        tensors = [value.const_value for value in graph.initializers.values()]
        if any(tensor is not None and tensor.dtype == HALF for tensor in tensors):
            return True
        if any(value.dtype == HALF for value in (*graph.inputs, *graph.outputs)):
            return True
        if any(_names_half(node) for node in graph.all_nodes()):
            return True
    return False


def _names_half(node: ir.Node) -> bool:
    """Whether an attribute holds float16, or says it; what attributes of foreign operators say is unknown."""
    names = TYPES if node.domain in STANDARD else ()
    return any(names_type(a, HALF, names) or holds_type(a, HALF) for a in node.attributes.values())


def _computes_in_float(node: ir.Node) -> bool:
    kinds = [element_type(value) for value in (*node.inputs, *node.outputs)]
    return HALF not in kinds and FLOAT in [element_type(value) for value in node.outputs]


def _widen(graph: ir.Graph) -> None:
    for value in graph.initializers.values():
        if value.const_value is not None and value.const_value.dtype == HALF:
            value.const_value = converted(value.const_value, FLOAT)
    values = {*graph.inputs, *graph.outputs, *graph.initializers.values()}
    for node in graph:
        retype_attributes(node, HALF, FLOAT, TYPES if node.domain in STANDARD else ())
        values.update(node.outputs)
    for value in values:
        value.type = retyped(value.type, HALF, FLOAT)


def _drop_casts(graph: ir.Graph) -> None:
    """Casts between the two float types, which are none any more, go."""
    for node in graph:
        is_cast = is_op(node, "Cast") and node.attributes.get_int("to") == FLOAT.value
        if is_cast and element_type(input_at(node, 0)) == FLOAT and can_bypass(node):
            bypass(node)
