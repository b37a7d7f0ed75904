"""Operator sets: which operators there are, and bringing a model to a set that its new nodes are in.

A set below the lowest that will do is raised, one above the newest that can run is lowered. Where every operator of the
model has the same schema in both, only the number changes; else onnx's converter is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import onnx
import onnx_ir as ir
from onnx import version_converter

from quark_onnx.core.errors import ConfigError, ModelError
from quark_onnx.core.plan import Skip
from quark_onnx.core.resource_faults import let_out
from quark_onnx.graph.custom_ops import carry
from quark_onnx.graph.normal_form import FIRST_WITHOUT_INPUTS
from quark_onnx.graph.older_meanings import carry_over
from quark_onnx.graph.passes import infer_shapes
from quark_onnx.graph.without_weights import light_proto, refusal

_APART = "quark_onnx.apart"  # the domain of operators that onnx's converter must not look at


@lru_cache(maxsize=1)
def operator_types() -> frozenset[str]:
    """Operator types of ONNX, of all its domains and operator sets."""
    return frozenset(schema.name for schema in onnx.defs.get_all_schemas_with_history())


def own_opset(model: ir.Model) -> int | None:
    """The model's operator set of ONNX; None if it uses other domains only."""
    imports = model.opset_imports
    return imports.get("", imports.get("ai.onnx"))


def quantizer_pair(opset: int, kind: str = "float") -> ir.Model:
    """QuantizeLinear and DequantizeLinear, and nothing else, in an operator set that onnx need not know.

    Args:
        kind: of the floats, as ONNX text calls it.
    """
    return ir.from_onnx_text(
        f"""<ir_version: 7, opset_import: ["": {opset}]> quantizers ({kind}[1] x, {kind} s, int8 z) => ({kind}[1] y) {{
            q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }}"""
    )


def fit_opset(model: ir.Model, needed: int, newest: int) -> str | None:
    """Bring the model to the operator set nearest to its own in `needed`..`newest`, its IR version to what that needs.

    Args:
        needed: the first operator set that has all that the formats ask for.
        newest: the last one whose QuantizeLinear and DequantizeLinear can run.

    Returns:
        What was done to nodes: "raise-opset" or "lower-opset"; None if there was nothing to do.

    Raises:
        ConfigError: the formats need more than can run.
        ModelError: an operator has no equal in the other operator set.
    """
    limit = f"the newest whose QuantizeLinear and DequantizeLinear this onnxruntime implements is {newest}"
    if needed > newest:
        raise ConfigError(
            f"the chosen formats need opset {needed}, and {limit}: update onnxruntime, or choose formats of 8 bits"
        )
    current, imports = own_opset(model) or needed, model.opset_imports
    imports.pop("ai.onnx", None)
    wanted = imports[""] = min(max(current, needed), newest)
    model.ir_version = _ir_version(model, wanted)
    if wanted == current or not any(node.domain == "" for node in model.graph.all_nodes()):
        return None
    imports[""] = current
    graph = _brought(model, current, wanted)
    if isinstance(graph, Skip) and wanted < current:
        raise ModelError(
            f"the model has opset {current}, {limit}, and the model cannot be lowered to that: {graph.reason}; "
            f"export it with opset {newest} or lower, or update onnxruntime"
        )
    if isinstance(graph, Skip):
        other = ", or choose 8-bit formats: they need opset 13 only" if needed > 13 <= current else ""
        raise ModelError(
            f"the model has opset {current} and cannot be raised to opset {needed}, which the chosen formats need: "
            f"{graph.reason}; export it again with opset {needed} or newer{other}"
        )
    carry(model.graph, graph)
    model.graph, imports[""] = graph, wanted
    return "lower-opset" if wanted < current else "raise-opset"


def _ir_version(model: ir.Model, opset: int) -> int:
    """The model's own, or the lowest that allows the operator set and initializers that are not inputs."""
    lowest = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)], ignore_unknown=True)
    return max(model.ir_version or 0, int(lowest), FIRST_WITHOUT_INPUTS)


def _brought(model: ir.Model, current: int, wanted: int) -> ir.Graph | Skip:
    """The graph in another operator set. The one of a lower set is the same if no operator changed in between."""
    known, told = onnx.defs.onnx_opset_version(), f"onnx {onnx.__version__} knows operators up to opset"
    if wanted > current:
        return Skip(f"{told} {known}: update it") if wanted > known else _converted(model, wanted)
    if current > known:
        return Skip(f"{told} {known}, not what changed after that")
    types = sorted({node.op_type for node in model.graph.all_nodes() if node.domain == ""})
    schemas = {name: onnx.defs.get_schema(name, current) for name in types if onnx.defs.has(name, current)}
    changed = [name for name, schema in schemas.items() if schema.since_version > wanted]
    graph = _converted(model, wanted) if changed else model.graph
    return Skip(f"{', '.join(changed)} changed after it ({graph.reason})") if isinstance(graph, Skip) else graph


def _converted(model: ir.Model, wanted: int) -> ir.Graph | Skip:
    """The graph converted by onnx, which looks into small constants only; the large ones are put back afterwards."""
    infer_shapes(model)  # some conversions need ranks; not every version of onnx infers them by itself
    carry_over(model, own_opset(model) or wanted, wanted)
    try:
        with _strangers_apart(model, own_opset(model) or wanted):
            proto = light_proto(model)
        converted = version_converter.convert_version(proto, wanted)
        for value, given in zip(converted.graph.output, proto.graph.output, strict=True):
            if not value.HasField("type"):  # of a sequence: the converter of onnx 1.20 and older forgets it
                value.type.CopyFrom(given.type)
        if (fault := refusal(converted)) and refusal(proto) is None:
            raise ValueError(fault)
        if _interface(converted) != _interface(proto):
            raise ValueError("the conversion would change the inputs or outputs")
        graph: ir.Graph = ir.from_proto(converted).graph
        _at_home(graph)
    except Exception as error:  # the converter, protobuf and the checker each have errors of their own
        let_out(error)
        return Skip(_reason(error))
    _restore(graph, model.graph)
    return graph


@contextmanager
def _strangers_apart(model: ir.Model, opset: int) -> Iterator[None]:
    """Operators of ONNX's domain that onnx does not know, in a domain that the converter leaves alone.

    They are onnxruntime's own, such as SimplifiedLayerNormalization, and are the same in all operator sets.
    """
    nodes = [node for node in model.graph.all_nodes() if node.domain == "" and not onnx.defs.has(node.op_type, opset)]
    for node in nodes:
        node.domain, model.opset_imports[_APART] = _APART, 1
    try:
        yield
    finally:
        for node in nodes:
            node.domain = ""
        model.opset_imports.pop(_APART, None)


def _at_home(graph: ir.Graph) -> None:
    """Strangers of a converted graph come back."""
    graph.opset_imports.pop(_APART, None)
    for node in graph.all_nodes():
        node.domain = "" if node.domain == _APART else node.domain


def _interface(proto: onnx.ModelProto) -> list[tuple[str, str | None, int, int]]:
    """Name, kind, element type and rank of every input and output."""
    values = (*proto.graph.input, *proto.graph.output)
    tensors = [(value, value.type.tensor_type) for value in values]
    return [(v.name, v.type.WhichOneof("value"), tensor.elem_type, len(tensor.shape.dim)) for v, tensor in tensors]


def _restore(graph: ir.Graph, source: ir.Graph) -> None:
    """The initializers of `source` come back with their own tensors, in their order; new ones follow."""
    inputs = len(source.inputs)
    values = {value.name: value for value in (*graph.inputs[inputs:], *graph.initializers.values())}
    graph.inputs[inputs:] = []  # not del, which would leave them marked as inputs
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
