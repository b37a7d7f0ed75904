"""Parts of a graph on their own: what lies between some values; and a model whose values can be disturbed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from quark_onnx.graph import io
from quark_onnx.graph.edit import fresh_name, new_node, read_instead
from quark_onnx.graph.element_types import infer_types
from quark_onnx.graph.segments import Segment, reads, submodel
from quark_onnx.graph.view import is_float


def with_types(model: ir.Model) -> ir.Model:
    """A copy whose values have their types, where they can be told."""
    copied = io.copy(model)
    infer_types(copied)
    return copied


def behind(model: ir.Model, result: ir.Value, cuts: Collection[ir.Value]) -> Segment:
    """All that computes `result` from the values in `cuts`, from inputs of the graph, and from initializers.

    The nodes are in the order of the graph; `cuts` must not hold `result` itself.
    """
    found: set[ir.Node] = set()
    inputs: dict[str, None] = {}
    waiting = [result]
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if value in cuts or (node is None and not value.is_initializer()):
            inputs[value.name or ""] = None
        elif node is not None and node not in found:
            found.add(node)
            waiting += reads([node])
    ordered = tuple(node for node in model.graph if node in found)
    return Segment(ordered, tuple(inputs), (result.name or "",))


def part(
    model: ir.Model, segment: Segment, extra: Sequence[str] = (), like: Mapping[str, NDArray[Any]] | None = None
) -> ir.Model:
    """The segment as a model that runs, on inputs of any size.

    Args:
        extra: see `segments.submodel`.
        like: an array for each input: it has that rank, and that type, where this is unknown. Without one it has any
            rank, and is taken for float32.
    """
    made = submodel(model, segment, extra)
    for value in made.graph.inputs:
        known = (like or {}).get(value.name or "")
        if value.type is None:
            value.type = ir.TensorType(ir.DataType.FLOAT if known is None else ir.DataType.from_numpy(known.dtype))
        value.shape = None if known is None else ir.Shape([None] * known.ndim)
    return made


def disturbable(model: ir.Model, tensors: Sequence[str]) -> tuple[ir.Model, dict[str, str]]:
    """A copy in which something can be added to each of these tensors, wherever it is read or returned.

    Returns:
        The copy, and tensor → the input that is added to it: an array of its shape, or a scalar 0. The tensors keep
        their names and are returned by the model. Tensors that are of no float type, or of none that is known, are left
        out.
    """
    copied = with_types(model)
    graph, found = copied.graph, {}
    first = graph[0] if len(graph) else None
    values = {value.name: value for value in (*graph.inputs, *(v for node in graph for v in node.outputs))}
    for name in tensors:
        value = values.get(name)
        if value is None or not is_float(value) or not isinstance(value.type, ir.TensorType) or first is None:
            continue
        noise = ir.Value(name=fresh_name(graph, f"{name}_noise"), type=value.type)
        graph.inputs.append(noise)
        add = new_node(graph, "Add", [value, noise], f"{name}_disturbed", f"{name}_sum")
        producer = value.producer()
        if producer is None:
            graph.insert_before(first, add)
        else:
            graph.insert_after(producer, add)
        _replace(graph, value, add)
        found[name] = noise.name or ""
    return copied, found


def _replace(graph: ir.Graph, value: ir.Value, add: ir.Node) -> None:
    """Whoever reads the value reads the sum, which takes its name where that is not one of an input of the graph."""
    total = add.outputs[0]
    total.type, total.shape = value.type, value.shape
    read_instead(value, total, keep=[add])
    if value.is_graph_input():
        return
    name = value.name
    for i, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[i] = total
    value.name = fresh_name(graph, f"{name}_before")
    total.name = name
    if not total.is_graph_output():
        graph.outputs.append(total)


def linear_part(node: ir.Node, index: int) -> ir.Model:
    """What a layer makes of its data by its weight, as a model of two inputs, the data and input number `index`.

    Without its bias it is linear in the weight: given the rounding error of that, it returns the error of the layer.
    """
    sizes = [value for value in node.inputs[:2] if value is not None]
    inputs = [ir.Value(name=f"input_{i}", type=_tensor_type(value)) for i, value in enumerate(sizes)]
    attributes = list(node.attributes.values())
    alone = ir.Node("", node.op_type, inputs, attributes, num_outputs=1, name="layer")
    alone.outputs[0].name, alone.outputs[0].type = "error", inputs[index].type
    versions = node.graph.opset_imports if node.graph is not None else {}
    graph = ir.Graph(inputs, alone.outputs, nodes=[alone], opset_imports=dict(versions), name="layer")
    return ir.Model(graph, ir_version=10)


def _tensor_type(value: ir.Value) -> ir.TensorType:
    """Float32 where it is not known."""
    return ir.TensorType(value.dtype or ir.DataType.FLOAT)
