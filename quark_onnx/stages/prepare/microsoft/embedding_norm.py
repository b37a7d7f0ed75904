"""EmbedLayerNormalization as the rows that it takes and the normalization of their sum.

    LayerNormalization(W[ids] + P[positions] + T[segments], γ, β)

Without positions a sample takes the first rows of P. The second output counts the ones of the mask, row by row; the
third is the sum. As Gathers the tables can be stored in 8 bits.
"""

from __future__ import annotations

from typing import NamedTuple

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node, Value
from quark_onnx.graph.edit import take_over
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import input_at
from quark_onnx.stages.prepare.microsoft.nodes_in_front import DOMAIN, UNKNOWN, floats, integers, is_read, opset, put
from quark_onnx.stages.prepare.microsoft.skip_norms import DEFAULT_EPSILON, OPSET, center

_INT32 = 6


class Found(NamedTuple):
    """What is added: (table, indices), where None stands for the first rows."""

    node: Node
    ids: Value
    rows: tuple[tuple[Value, Value | None], ...]
    gamma: Value
    beta: Value | None


def match(node: Node) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do."""
    ids, segments, words, positions, kinds, gamma, beta, mask, at = (input_at(node, i) for i in range(9))
    if ids is None or words is None or positions is None or gamma is None or not floats(words, gamma):
        return Skip(UNKNOWN)
    if opset(node) < OPSET:
        return Skip(f"LayerNormalization came with operator set {OPSET}, to which the model cannot be raised")
    if is_read(node, 1) and mask is None:
        return Skip("the length of its mask is read, and it has no mask")
    rows: tuple[tuple[Value, Value | None], ...] = ((words, ids), (positions, at))
    if segments is not None and kinds is not None:
        rows = (*rows, (kinds, segments))
    return Found(node, ids, rows, gamma, beta)


def apply(found: Found) -> None:
    """Edit only."""
    node, total = found.node, None
    for table, indices in found.rows:
        row = _first(node, table, found.ids) if indices is None else put(node, "Gather", [table, indices])
        total = row if total is None else put(node, "Add", [total, row])
        total.type = table.type
    assert total is not None
    if is_read(node, 1):
        count = put(node, "ReduceSum", [node.inputs[7], integers(node, 1)], attributes={"keepdims": 0})
        take_over(node.outputs[1], put(node, "Cast", [count], attributes={"to": _INT32}))
    if is_read(node, 2):
        take_over(node.outputs[2], total)
    center(node, total, found.gamma, found.beta, node.attributes.get_float("epsilon", DEFAULT_EPSILON))
    node.outputs[0].type = total.type


def _first(node: Node, table: Value, ids: Value) -> Value:
    """As many rows of the table as a sample has ids."""
    length = put(node, "Gather", [put(node, "Shape", [ids]), integers(node, 1)])
    return put(node, "Slice", [table, integers(node, 0), length, integers(node, 0)])


RULE = Rule("standard-embedding", ("EmbedLayerNormalization",), match, apply, DOMAIN)
