"""Tensors that are computed in float and read both ways: as integers by kernels, as floats by all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from quark_onnx.core.operators import SHAPE_ALONE
from quark_onnx.core.plan import Site
from quark_onnx.graph import Graph, Value
from quark_onnx.graph.view import is_op


def with_floats_beside(graph: Graph, sites: Mapping[str, Site], nodes: Mapping[str, Sequence[str]]) -> dict[str, Site]:
    """The sites; those of tensors that no integer kernel makes keep the floats for who has not asked for integers.

    Args:
        nodes: quantized node → the tensors that carry a quantizer for it.
    """
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    found = {value.name for value in values if value.name in sites and _read_both_ways(value, nodes)}
    return {tensor: replace(site, beside=True) if tensor in found else site for tensor, site in sites.items()}


def _read_both_ways(value: Value, nodes: Mapping[str, Sequence[str]]) -> bool:
    producer = value.producer()
    if producer is not None and value.name in nodes.get(producer.name or "", ()):
        return False
    readers = [node for node in value.consumers() if not is_op(node, *SHAPE_ALONE)]
    return value.is_graph_output() or any(value.name not in nodes.get(node.name or "", ()) for node in readers)
