"""A graph cut into consecutive pieces, each a model of its own.

Any consecutive slice of a topological order is a valid piece: it reads what earlier pieces made, and makes what later
ones read. Running all pieces in turn computes the model, and only the values on the cut are alive in between.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from quark_onnx.graph.custom_ops import carry


@dataclass(frozen=True, eq=False)
class Segment:
    """A slice of the graph.

    nodes    in order; the first is an anchor, but for the piece before the first anchor
    inputs   values read here and made earlier (model inputs included)
    outputs  values made here and read later, or model outputs
    """

    nodes: tuple[ir.Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def segments(model: ir.Model, anchors: Collection[str]) -> list[Segment]:
    """The graph cut in front of every node named in `anchors`."""
    slices: list[list[ir.Node]] = [[]]
    for node in model.graph:
        if node.name in anchors and slices[-1]:
            slices.append([])
        slices[-1].append(node)
    last_reader = _last_readers(slices)
    found = []
    for i, nodes in enumerate(slices):
        made = {value for node in nodes for value in node.outputs}
        inputs = [value for value in reads(nodes) if value not in made and not value.is_initializer()]
        outputs = [v for n in nodes for v in n.outputs if v.is_graph_output() or last_reader.get(v, i) > i]
        found.append(Segment(tuple(nodes), _names(inputs), _names(outputs)))
    return found


def submodel(model: ir.Model, segment: Segment, extra: Sequence[str] = ()) -> ir.Model:
    """A copy of the segment as a model, tensors shared. `extra`: inner values that it returns as well."""
    read = reads(segment.nodes)
    inner = {value.name or "": value for value in (*read, *(v for node in segment.nodes for v in node.outputs))}
    constants = [value for value in read if value.is_initializer()]
    view = ir.GraphView(
        [inner[name] for name in segment.inputs],
        [inner[name] for name in dict.fromkeys((*segment.outputs, *extra))],
        nodes=segment.nodes,
        initializers=sorted(constants, key=lambda value: value.name or ""),
        opset_imports=model.graph.opset_imports,
        name="segment",
    )
    made = ir.Model(view.clone(), ir_version=model.ir_version)
    carry(model.graph, made.graph)
    return made


def reads(nodes: Sequence[ir.Node]) -> list[ir.Value]:
    """Values of this graph that the nodes, or bodies inside them, read; each once, in order."""
    found: dict[ir.Value, None] = {}
    for node in nodes:
        found.update(dict.fromkeys(value for value in node.inputs if value is not None))
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                inner = ir.traversal.RecursiveGraphIterator(attribute.as_graph())
                found.update(
                    dict.fromkeys(v for n in inner for v in n.inputs if v is not None and v.graph is node.graph)
                )
    return list(found)


def _last_readers(slices: Sequence[Sequence[ir.Node]]) -> dict[ir.Value, int]:
    return {value: i for i, nodes in enumerate(slices) for value in reads(nodes)}


def _names(values: Sequence[ir.Value]) -> tuple[str, ...]:
    return tuple(value.name or "" for value in values)
