"""Residual additions for targets that add inside the convolution: which branch carries the quantizer."""

from __future__ import annotations

from quark_onnx.core.operators import Op
from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node, Value
from quark_onnx.graph.view import constant, is_op, sole_reader
from quark_onnx.stages.place.site_request import Context, SiteRequest


def residual(node: Node, row: Op, context: Context) -> SiteRequest | Skip:
    """An addition to what comes straight from a convolution: the other branch carries the quantizer.

    Where both branches come from one, the shorter is the skip branch, as with a convolution that only projects.
    """
    branches = [value for value in node.inputs if value is not None and constant(value) is None]
    straight = [value for value in branches if _from_convolution(value, context)]
    if not straight or len(branches) < 2:
        return Skip("no convolution in front of it that could take the addition in")
    main = max(straight, key=_depth) if len(straight) > 1 else straight[0]
    request = SiteRequest("residual")
    request.want_data(next(value for value in branches if value is not main), context.config)
    return request


def _from_convolution(value: Value, context: Context) -> bool:
    producer = value.producer()
    if producer is None or not is_op(producer, "Conv"):
        return False
    if producer.name in context.barred or context.leaves_float(producer):
        return False
    return sole_reader(value) is not None


def _depth(value: Value) -> int:
    """How many nodes lie on the longest way from the inputs to a value."""
    last = value.producer()
    assert last is not None and last.graph is not None
    found: dict[Node, int] = {}
    for node in last.graph:
        found[node] = 1 + max((found[before] for before in node.predecessors() if before in found), default=0)
        if node is last:
            break
    return found[last]
