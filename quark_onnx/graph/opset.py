"""Operator sets: which operators there are, and raising a model to the set that its new nodes need."""

from __future__ import annotations

from functools import lru_cache

import onnx
import onnx_ir as ir
from onnx import version_converter

from quark_onnx.core.errors import ModelError
from quark_onnx.graph.light import light_proto
from quark_onnx.graph.passes import infer_shapes

FIRST_WITHOUT_INPUTS = 4
"""The IR version from which initializers need not be listed as inputs."""


@lru_cache(maxsize=1)
def operator_types() -> frozenset[str]:
    """Operator types of ONNX, of all its domains and operator sets."""
    return frozenset(schema.name for schema in onnx.defs.get_all_schemas_with_history())


def raise_opset(model: ir.Model, needed: int) -> bool:
    """Bring the model to operator set `needed` if it has a lower one, and its IR version to what that asks for.

    Returns:
        Whether nodes were converted.

    Raises:
        ModelError: an operator cannot be converted.
    """
    imports = model.opset_imports
    alias = imports.pop("ai.onnx", None)
    current = imports.get("", alias or needed)
    imports[""] = current
    model.ir_version = _ir_version(model, max(current, needed))
    if current >= needed:
        return False
    converted = any(node.domain == "" for node in model.graph.all_nodes())
    if converted:
        model.graph = _converted(model, current, needed)
    model.opset_imports[""] = needed
    return converted


def _ir_version(model: ir.Model, opset: int) -> int:
    """The model's own, or the lowest that allows the operator set and initializers that are not inputs."""
    lowest = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)], ignore_unknown=True)
    return max(model.ir_version or 0, int(lowest), FIRST_WITHOUT_INPUTS)


def _converted(model: ir.Model, current: int, needed: int) -> ir.Graph:
    """The graph converted by onnx, which looks into small constants only; the large ones are put back afterwards."""
    infer_shapes(model)  # some conversions need ranks; not every version of onnx infers them by itself
    try:
        proto = light_proto(model)
        converted = version_converter.convert_version(proto, needed)
        onnx.checker.check_model(converted)
        if _interface(converted) != _interface(proto):
            raise ValueError("the conversion would change the inputs or outputs")
        graph: ir.Graph = ir.from_proto(converted).graph
    except Exception as error:  # the converter, protobuf and the checker each have errors of their own
        other = ", or choose 8-bit formats: they need opset 13 only" if needed > 13 <= current else ""
        raise ModelError(
            f"the model has opset {current} and cannot be raised to opset {needed}, which the chosen formats need: "
            f"{_reason(error)}; export it again with opset {needed} or newer{other}"
        ) from error
    _restore(graph, model.graph)
    return graph


def _interface(proto: onnx.ModelProto) -> list[tuple[str, str | None, int, int]]:
    """Name, kind, element type and rank of every input and output."""
    values = (*proto.graph.input, *proto.graph.output)
    tensors = [(value, value.type.tensor_type) for value in values]
    return [(v.name, v.type.WhichOneof("value"), tensor.elem_type, len(tensor.shape.dim)) for v, tensor in tensors]


def _restore(graph: ir.Graph, source: ir.Graph) -> None:
    """The initializers of `source` come back with their own tensors, in their order; new ones follow."""
    inputs = len(source.inputs)
    values = {value.name: value for value in (*graph.inputs[inputs:], *graph.initializers.values())}
    del graph.inputs[inputs:]
    graph.initializers.clear()
    for name, original in source.initializers.items():
        value = values.pop(name, None)
        if value is not None:
            value.const_value, value.type, value.shape = original.const_value, original.type, original.shape
            graph.initializers.add(value)
    for value in values.values():
        graph.initializers.add(value)


def _reason(error: Exception) -> str:
    """The line that says what went wrong, without the C++ file and assertion around it."""
    text = str(error).strip() or type(error).__name__
    return text.rsplit("failed: ", 1)[-1].splitlines()[0].strip().rstrip(".")
