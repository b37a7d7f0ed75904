"""Which tensors share a scale: followers take the group of their leader, chains end at the first leader."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from quark_onnx.core.operators import NON_NEGATIVE, Op
from quark_onnx.core.plan import Site
from quark_onnx.graph import Node, Value
from quark_onnx.graph.view import constant, input_at, is_op
from quark_onnx.stages.place.never_quantized import data_inputs


def grouped(sites: Mapping[str, Site], ties: Mapping[str, str]) -> dict[str, Site]:
    """The sites with their group set.

    A tie is dropped where the follower has a range that is known beforehand, or where it would close a circle.
    """
    kept = {follower: leader for follower, leader in ties.items() if sites[follower].range is None}
    return {name: replace(site, group=_leader(name, kept)) for name, site in sites.items()}


def _leader(name: str, ties: Mapping[str, str]) -> str:
    passed = {name}
    while name in ties and ties[name] not in passed:
        name = ties[name]
        passed.add(name)
    return name


def shares_negative(value: Value, ops: Mapping[str, Op], aligned: Collection[str], barred: Collection[str]) -> bool:
    """Whether a tensor will have one scale with values that may be negative, by way of aligned operators.

    Args:
        aligned: operator types whose inputs and outputs share a scale, beyond those that only move values.
        barred: names of nodes that stay float, whatever they are.
    """
    found, waiting = {value}, [value] if aligned else []
    while waiting:
        current = waiting.pop()
        producer = current.producer()
        if not _links(producer, ops, aligned, barred) and not non_negative(current):
            return True
        for node in (*current.consumers(), producer):
            tied = _tied(node, ops) if node is not None and _links(node, ops, aligned, barred) else []
            if current in tied:
                waiting += [other for other in tied if other not in found]
                found.update(tied)
    return False


def _tied(node: Node, ops: Mapping[str, Op]) -> list[Value]:
    return [*data_inputs(node, ops[node.op_type]), *node.outputs]


def _links(node: Node | None, ops: Mapping[str, Op], aligned: Collection[str], barred: Collection[str]) -> bool:
    """Whether what the node reads and writes has one scale."""
    if node is None or not is_op(node, *ops) or node.name in barred:
        return False
    return ops[node.op_type].kind == "same" or node.op_type in aligned


def non_negative(value: Value) -> bool:
    """Whether the tensor is known to hold no negative value, from what makes it."""
    array, producer = constant(value), value.producer()
    if array is not None:
        return bool((array >= 0).all())
    if producer is not None and is_op(producer, "Clip"):
        low = constant(input_at(producer, 1))
        return low is not None and bool((low >= 0).all())
    return is_op(producer, *NON_NEGATIVE)
