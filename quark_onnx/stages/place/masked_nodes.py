"""Masks, what they hide, and what decides where, stay float: the graph tells, whatever calibration data show."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from quark_onnx.core.operators import Op
from quark_onnx.core.plan import Ends
from quark_onnx.graph import Graph
from quark_onnx.graph.attention_masks import masks_of
from quark_onnx.graph.view import is_op

HIDDEN = "a mask of {0:.3g} may hide values of {1!r} from a Softmax: no grid holds both"
DECIDES = "a mask is made of {0!r}: no value of it may become another"


def masked_nodes(graph: Graph) -> dict[str, str]:
    """Nodes that make or read what a mask is in, or that make what a mask is made of → the reason."""
    masks, reasons = masks_of(graph), dict[str, str]()
    for value, number in masks.hidden.items():
        nodes = [node for node in (value.producer(), *value.consumers()) if node is not None]
        for node in nodes:
            reasons.setdefault(node.name or "", HIDDEN.format(number, value.name))
    makers = ((value.producer(), value) for value in masks.deciding)
    return {n.name or "": DECIDES.format(v.name) for n, v in makers if n is not None} | reasons


def ranges_behind(
    graph: Graph, masked: Collection[str], ops: Mapping[str, Op], bits: int
) -> dict[str, tuple[Ends, Ends] | None]:
    """Outputs of these nodes that have a known range in so many bits, that of a Softmax, which readers still want."""
    nodes = [node for node in graph if node.name in masked and is_op(node, *ops)]
    return {node.outputs[0].name or "": ops[node.op_type].known_range(bits) for node in nodes}
