"""Probabilities that leave the model stay float, also where they are only moved on the way out.

The fixed range of a Softmax or Sigmoid has steps of 1/256: as a model output most probabilities of a large classifier
would be 0. Raising a model to opset 13 puts a Reshape behind its Softmax; that changes nothing about it.
"""

from __future__ import annotations

from collections.abc import Mapping

from quark_onnx.core.operators import Op
from quark_onnx.graph import Node, Value
from quark_onnx.graph.view import is_op

REASON = "its output is a model output: a fixed step would be all the user sees"


def only_shown(value: Value, ops: Mapping[str, Op]) -> bool:
    """Whether all that happens to the value is that it leaves the model, moved or not."""
    readers = value.consumers()
    if not readers:
        return value.is_graph_output()
    return all(_moves(node, ops) and all(only_shown(used, ops) for used in _used(node)) for node in readers)


def moves_shown(node: Node, ops: Mapping[str, Op]) -> bool:
    """Whether a node that only moves values gets them from an operator of fixed range whose values are only shown."""
    source: Node | None = node
    while source is not None and _moves(source, ops):
        value = source.inputs[0]
        source = None if value is None else value.producer()
    return source is not None and _kind(source, ops) == "fixed" and only_shown(source.outputs[0], ops)


def _used(node: Node) -> list[Value]:
    return [value for value in node.outputs if value.uses() or value.is_graph_output()]


def _moves(node: Node, ops: Mapping[str, Op]) -> bool:
    return _kind(node, ops) == "same"


def _kind(node: Node, ops: Mapping[str, Op]) -> str:
    return ops[node.op_type].kind if is_op(node, *ops) else ""
