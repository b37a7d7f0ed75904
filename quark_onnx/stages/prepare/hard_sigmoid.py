"""HardSigmoid behind a layer that nothing else reads, as a Clip: slope and offset go into the layer.

    clip(α (W x + b) + β, 0, 1)  =  clip((α W) x + (α b + β), 0, 1)

The quantizer of the layer's output, whose range ends at 0 and 1, clips: nothing remains to compute.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node
from quark_onnx.graph.edit import add_constant, become, graph_of
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import is_op, sole_reader
from quark_onnx.stages.prepare.affine_layer import read
from quark_onnx.stages.prepare.scaled_constants import Folded, after, store


class Found(NamedTuple):
    node: Node
    layer: Folded
    dtype: np.dtype[np.generic]


def match(node: Node) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do."""
    source = node.inputs[0]
    producer = None if source is None else source.producer()
    if source is None or producer is None or not is_op(producer, *LAYERS):
        return Skip("no layer computes its input")
    if sole_reader(source) is not node:
        return Skip("the output of the layer is read elsewhere")
    if node.outputs[0].is_graph_output():
        return Skip("its output is a model output")
    layer = read(producer)
    if isinstance(layer, Skip):
        return layer
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    if beta and layer.bias is None:
        return Skip("the layer has no bias for the offset")
    new = after(layer, np.full(layer.channels, alpha), np.full(layer.channels, beta))
    return new if isinstance(new, Skip) else Found(node, new, layer.weight.dtype)


def apply(found: Found) -> None:
    """Edit only."""
    node, graph = found.node, graph_of(found.node)
    store(found.layer)
    ends = (add_constant(graph, np.asarray(end, found.dtype), f"{node.name}_{end}") for end in (0, 1))
    become(node, "Clip", [node.inputs[0], *ends])


RULE = Rule("hard-sigmoid", ("HardSigmoid",), match, apply)
