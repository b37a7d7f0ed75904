"""Operators that would be quantized for nobody: all readers of their output compute in float.

Quantizing them would add a rounding and save nothing. The residual Add in front of a LayerNormalization is the case
that matters: its values have outliers, and rounding them costs a transformer more than all its integer layers together.
"""

from __future__ import annotations

from collections.abc import Mapping

from quark_onnx.graph import Graph, Value
from quark_onnx.stages.place.rules import Wish

REASON = "all readers of its output compute in float: quantizing it would only add rounding"


def drop_idle(graph: Graph, wishes: dict[str, Wish], moving: Mapping[str, Wish], notes: dict[str, str]) -> None:
    """Take operators without a weight out of `wishes` where no reader of their output takes integers.

    Goes from the outputs to the inputs, so that a chain of such operators is dropped whole. Operators that only move
    values (`moving`) hand the question on to their own readers. A model output counts as a reader.
    """
    for node in reversed(graph):
        name = node.name or ""
        wish = wishes.get(name)
        if wish is None or wish.rule not in ("activation", "fixed range"):
            continue
        behind = wish.absorbed[-1] if wish.absorbed else node
        if not _takes_integers(behind.outputs[0], wishes, moving):
            del wishes[name]
            notes |= dict.fromkeys((name, *(n.name or "" for n in wish.absorbed)), REASON)


def _takes_integers(value: Value, wishes: Mapping[str, Wish], moving: Mapping[str, Wish]) -> bool:
    if value.is_graph_output():
        return True
    for node in value.consumers():
        name = node.name or ""
        if name in wishes and any(site.tensor == value.name for site in wishes[name].sites):
            return True
        if name in moving and any(_takes_integers(output, wishes, moving) for output in node.outputs):
            return True
    return False
