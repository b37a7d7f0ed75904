"""Move the strides of a convolution of one position in front of it, to what passes positions over.

    Conv₁ₓ₁(x, strides s)  =  Conv₁ₓ₁(MaxPool₁ₓ₁(x, strides s))

OpenVINO does so itself, but behind the quantizer, and then computes both in float. Where the pool stands in the model
it hands on codes, as all do that only move values.
"""

from __future__ import annotations

from typing import NamedTuple

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node
from quark_onnx.graph.edit import graph_of, new_node
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import is_op, shape


class Found(NamedTuple):
    """All who read a value, which are convolutions of one position, and the strides of each."""

    readers: tuple[Node, ...]
    strides: tuple[int, ...]


def match(conv: Node) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do."""
    strides, source = _strides(conv), conv.inputs[0]
    if strides is None or source is None:
        return Skip("it reads more than one position, or passes over none")
    readers = tuple(use.node for use in source.uses())
    alike = all(node.graph is conv.graph and _strides(node) == strides for node in readers)
    if not alike or source.is_graph_output():
        return Skip("somebody else reads what it passes over, and OpenVINO leaves its strides where they are")
    return Found(readers, strides)


def _strides(node: Node) -> tuple[int, ...] | None:
    """Of a convolution of one position that passes others over."""
    kernel = shape(node.inputs[1]) if is_op(node, "Conv") else None
    strides = tuple(node.attributes.get_ints("strides", [1]))
    padded = any(node.attributes.get_ints("pads", [0])) or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
    return None if kernel is None or set(kernel[2:]) != {1} or max(strides) == 1 or padded else strides


def apply(found: Found) -> None:
    """Edit only."""
    first = found.readers[0]
    graph, name = graph_of(first), f"{first.name}_strides"
    attributes = {"kernel_shape": [1] * len(found.strides), "strides": found.strides}
    pool = new_node(graph, "MaxPool", [first.inputs[0]], name, name, attributes)
    graph.insert_before(min(found.readers, key=list(graph).index), [pool])
    for conv in found.readers:
        conv.replace_input_with(0, pool.outputs[0])
        del conv.attributes["strides"]


RULE = Rule("strides-in-front", ("Conv",), match, apply)
