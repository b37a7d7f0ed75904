"""Operators that would be quantized for nobody: all readers of their output compute in float.

Quantizing them would add a rounding and save nothing. The residual Add in front of a LayerNormalization is the case
that matters: its values have outliers, and rounding them costs a transformer more than all its integer layers together.
"""

from __future__ import annotations

from collections.abc import Mapping

from quark_onnx.graph import Graph, Value
from quark_onnx.stages.place.site_request import SiteRequest

REASON = "all readers of its output compute in float: quantizing it would only add rounding"


def drop_idle(
    graph: Graph, requests: dict[str, SiteRequest], moving: Mapping[str, SiteRequest], notes: dict[str, str]
) -> None:
    """Take operators without a weight out of `requests` where no reader of their output takes integers.

    Goes from the outputs to the inputs, so that a chain of such operators is dropped whole. Operators that only move
    values (`moving`) hand the question on to their own readers. A model output counts as a reader.
    """
    for node in reversed(graph):
        name = node.name or ""
        request = requests.get(name)
        if request is None or request.rule not in ("activation", "fixed range"):
            continue
        behind = request.absorbed[-1] if request.absorbed else node
        if not _takes_integers(behind.outputs[0], requests, moving):
            del requests[name]
            notes |= dict.fromkeys((name, *(n.name or "" for n in request.absorbed)), REASON)


def _takes_integers(value: Value, requests: Mapping[str, SiteRequest], moving: Mapping[str, SiteRequest]) -> bool:
    if value.is_graph_output():
        return True
    for node in value.consumers():
        name = node.name or ""
        if name in requests and any(site.tensor == value.name for site in requests[name].sites):
            return True
        if name in moving and any(_takes_integers(output, requests, moving) for output in node.outputs):
            return True
    return False
