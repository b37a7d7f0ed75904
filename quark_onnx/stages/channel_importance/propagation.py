"""From the outputs to the inputs, node by node: gains of a tensor are the sum of what its readers say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quark_onnx.graph import Graph, Model, Node, Value
from quark_onnx.graph.view import is_constant, is_op
from quark_onnx.stages.channel_importance.channel_gains import ALIKE, Gain, added
from quark_onnx.stages.channel_importance.operator_rules import RULES


def channel_importance(model: Model) -> dict[str, NDArray[np.float64]]:
    """Tensor → one gain per channel, of mean 1; channels are along axis 1, behind a MatMul of rank 3 the last.

    Tensors whose channels are all alike, or of which nothing is known, have no entry.
    """
    gains: dict[Value, Gain | None] = dict.fromkeys(model.graph.outputs, ALIKE)
    gains |= dict.fromkeys(_read_in_bodies(model.graph))
    for node in reversed(model.graph):
        for value, share in _shares(node, gains.get(node.outputs[0])):
            gains[value] = added(gains[value], share) if value in gains else share
    return {value.name or "": gain.values for value, gain in gains.items() if gain is not None and not gain.alike}


def _read_in_bodies(graph: Graph) -> list[Value]:
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    return [value for value in values if any(use.node.graph is not graph for use in value.uses())]


def _shares(node: Node, gain: Gain | None) -> list[tuple[Value, Gain | None]]:
    """What one reader contributes to its inputs; None: it is not known."""
    if is_op(node, "Shape", "Size"):
        return []
    rule = next((rule for ops, rule in RULES.items() if is_op(node, *ops)), None)
    known = {} if rule is None else rule(node, gain)
    return [(v, known.get(i)) for i, v in enumerate(node.inputs) if v is not None and not is_constant(v)]
