"""Tensors that hold codes already: what only moves or joins values hands them on, and a quantizer behind it costs time.

A second quantizer with the same scale changes no number, but OpenVINO runs a kernel for it: convert, subtract, multiply
and round once more. So there each chain of movements has one, where its values are computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from quark_onnx.core.operators import Op
from quark_onnx.core.plan import Site
from quark_onnx.graph import Graph, Node
from quark_onnx.graph.view import is_op
from quark_onnx.stages.place.never_quantized import data_inputs


def hands_on(node: Node, ops: Mapping[str, Op]) -> bool:
    """Whether the node computes nothing: every element of its output is one of an input."""
    return is_op(node, *ops) and (ops[node.op_type].kind == "same" or ops[node.op_type].joins)


def with_codes_handed(
    graph: Graph, sites: Mapping[str, Site], nodes: Mapping[str, Sequence[str]], ops: Mapping[str, Op]
) -> dict[str, Site]:
    """The sites; those behind what hands codes on, without a quantizer of their own.

    Args:
        nodes: quantized node → the tensors that carry a quantizer for it.
    """
    found = {
        value.name
        for node in graph
        if node.name in nodes and hands_on(node, ops)
        for value in node.outputs
        if value.name in sites and _all_alike(node, sites[value.name or ""], sites, ops)
    }
    return {tensor: replace(site, handed=tensor in found) for tensor, site in sites.items()}


def _all_alike(node: Node, site: Site, sites: Mapping[str, Site], ops: Mapping[str, Op]) -> bool:
    """Whether all that the node moves has the scale and format of a site behind it."""
    read = [sites.get(value.name or "") for value in data_inputs(node, ops[node.op_type])]
    return all(one is not None and (one.group, one.format) == (site.group, site.format) for one in read)
