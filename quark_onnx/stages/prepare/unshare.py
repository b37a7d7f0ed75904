"""One initializer, one use: a weight that readers quantize in different ways, and a bias, are copied for them.

A bias gets the scale (input scale × weight scale) of its own layer, so every layer needs a bias of its own. A weight is
shared as long as all its readers cut it along the same axis; it is copied for a reader that cuts it along another one,
or when somebody reads it as plain numbers: an Add, a Gather, a control-flow body, a graph output.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node, Value
from quark_onnx.graph.edit import add_constant, graph_of
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.shared_constants import note_copy
from quark_onnx.graph.view import constant, is_constant, is_float, is_op
from quark_onnx.stages.prepare.affine_layer import weight_axes

PLAIN = "plain numbers"


class Found(NamedTuple):
    """Reads of one initializer that need a copy: (node, input number)."""

    value: Value
    reads: tuple[tuple[Node, int], ...]


def match(node: Node) -> Found | Skip:
    """Read only: the first input that needs a copy, with all reads that can share this copy."""
    for at, value in enumerate(node.inputs):
        if value is None or not is_constant(value) or not is_float(value):
            continue
        reads = [(use.node, use.idx) for use in value.uses()]
        uses = [_use(reader, index, node) for reader, index in reads]
        owner = PLAIN if PLAIN in uses or value.is_graph_output() else uses[0]
        mine = _use(node, at, node)
        if mine not in (owner, PLAIN):
            return Found(value, tuple(read for read, use in zip(reads, uses, strict=True) if use == mine))
    return Skip("all its constants can stay as they are")


def _use(reader: Node, at: int, node: Node) -> Hashable:
    """What the reader does with the constant; equal for readers that can share it."""
    if reader.graph is not node.graph or not is_op(reader, *LAYERS):
        return PLAIN
    if at == 2:
        return reader
    weight = reader.inputs[at]
    ndim = 0 if weight is None or weight.shape is None else len(weight.shape)
    return PLAIN if at == 0 and not is_op(reader, "MatMul") else (reader.op_type, weight_axes(reader, at, ndim))


def apply(found: Found) -> None:
    """Edit only."""
    graph = graph_of(found.reads[0][0])
    copy = add_constant(graph, constant(found.value), found.value.name or "shared")
    note_copy(copy, found.value)
    for node, at in found.reads:
        node.replace_input_with(at, copy)


RULE = Rule("unshare", LAYERS, match, apply)
