"""Tensors that are computed in float and read both ways: as integers by kernels, as floats by all others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from quark_onnx.core.operators import SHAPE_ALONE, Op
from quark_onnx.core.plan import Site
from quark_onnx.graph import Graph, Value
from quark_onnx.graph.view import constant, is_op


def with_floats_beside(
    graph: Graph, sites: Mapping[str, Site], nodes: Mapping[str, Sequence[str]], ops: Mapping[str, Op]
) -> dict[str, Site]:
    """The sites; those of tensors that no integer kernel makes keep the floats for who has not asked for integers.

    Args:
        nodes: quantized node → the tensors that carry a quantizer for it.
        ops: the target's table.
    """
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    found = {value.name for value in values if value.name in sites and _read_both_ways(value, nodes, ops)}
    return {tensor: replace(site, beside=True) if tensor in found else site for tensor, site in sites.items()}


def behind_layer(value: Value, nodes: Collection[str], ops: Mapping[str, Op]) -> bool:
    """Whether a layer on integers makes the value, with float operators behind it that it takes in: integers on demand.

    Args:
        nodes: quantized ones.
        ops: the target's table.
    """
    taken = {name for row in ops.values() if row.kind == "layer" for name in row.takes}
    waiting, seen = [value], {value}
    while waiting:
        producer = waiting.pop().producer()
        if producer is None:
            continue
        if producer.name in nodes and is_op(producer, *ops) and ops[producer.op_type].kind == "layer":
            if ops[producer.op_type].takes:
                return True
        elif is_op(producer, *taken):
            before = {v for v in producer.inputs if v is not None and constant(v) is None and v not in seen}
            waiting += before
            seen |= before
    return False


def _read_both_ways(value: Value, nodes: Mapping[str, Sequence[str]], ops: Mapping[str, Op]) -> bool:
    producer = value.producer()
    if producer is not None and value.name in nodes.get(producer.name or "", ()):
        return False
    readers = [node for node in value.consumers() if not is_op(node, *SHAPE_ALONE)]
    apart = value.is_graph_output() or any(value.name not in nodes.get(node.name or "", ()) for node in readers)
    return apart and not behind_layer(value, nodes, ops)
