"""Enlarge by repetition, by 2, 4, 8, …, plane by plane and doubling by doubling.

    Resize(x, [1, 1, 2ⁿ, 2ⁿ])  =  Reshape(Resize(… Resize(Reshape(x, [N·C, 1, H, W]), [1, 1, 2, 2]) …), [N, C, 2ⁿ·H, 2ⁿ·W])

onnxruntime has a fast kernel for doubling tensors whose channels come first. Its integer convolutions have them last,
and what stands between two of those is moved to their layout: 690 µs for 96 channels of 40 × 52, where 120 do with
both transpositions. Through a Reshape it does not move them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node, Value
from quark_onnx.graph.edit import add_constant, become, fresh_name, graph_of, new_node
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import constant, input_at, is_op, shape

PLANES = (-1, 1, 0, 0)
"""Every channel a sample; 0 is what it was."""

REPEATING = {
    "asymmetric": ("floor",),
    "half_pixel": ("round_prefer_floor", "round_prefer_ceil"),
    "half_pixel_symmetric": ("round_prefer_floor", "round_prefer_ceil"),
    "pytorch_half_pixel": ("round_prefer_floor", "round_prefer_ceil"),
}
"""Which value is taken at i of k times as many: that at ⌊i / k⌋, as (i + ½) / k − ½ is never half a step away."""


class Found(NamedTuple):
    """`resize` doubles so many times; its input has so many channels."""

    resize: Node
    times: int
    channels: int


def match(resize: Node) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do."""
    text = resize.attributes.get_string
    nearest, where = text("nearest_mode", "round_prefer_floor"), text("coordinate_transformation_mode", "half_pixel")
    if text("mode", "nearest") != "nearest" or nearest not in REPEATING.get(where or "", ()):
        return Skip("it does more than repeat values")
    dims, factors = shape(resize.inputs[0]), _factors(resize)
    if dims is None or len(dims) != 4 or dims[1] is None or factors is None:
        return Skip("its factors or the channels of its input are not known")
    if "axes" in resize.attributes or factors[:2] != (1, 1) or factors[2] != factors[3]:
        return Skip("it does not enlarge two axes alike")
    times = round(np.log2(factors[2]))
    if times < 1 or factors[2] != 2**times:
        return Skip("its factor is not a power of two")
    if _in_planes(resize.inputs[0]):
        return Skip("it works plane by plane already")
    return Found(resize, times, dims[1])


def _factors(resize: Node) -> tuple[float, ...] | None:
    """How many times as long each axis becomes."""
    scales, sizes = constant(input_at(resize, 2)), constant(input_at(resize, 3))
    if scales is not None and scales.size:
        return tuple(scales.tolist())
    before = shape(resize.inputs[0])
    if sizes is None or before is None or not all(before) or sizes.size != len(before):
        return None
    return tuple((sizes / np.array(before)).tolist())


def _in_planes(value: Value | None) -> bool:
    producer = None if value is None else value.producer()
    while is_op(producer, "Resize") and producer is not None and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    if producer is None or not is_op(producer, "Reshape"):
        return False
    wanted = constant(input_at(producer, 1))
    return wanted is not None and tuple(wanted.tolist()) == PLANES


def apply(found: Found) -> None:
    """Edit only."""
    resize, graph = found.resize, graph_of(found.resize)
    name, source = resize.name or "", resize.inputs[0]
    attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    twice = add_constant(graph, np.array([1, 1, 2, 2], np.float32), f"{name}_twice")
    apart = add_constant(graph, np.array(PLANES, np.int64), f"{name}_planes")
    nodes = [new_node(graph, "Reshape", [source, apart], f"{name}_Reshape", f"{name}_apart")]
    for _ in range(found.times):
        before = nodes[-1].outputs[0]
        nodes.append(new_node(graph, "Resize", [before, None, twice], name, f"{name}_doubled", attributes))
    graph.insert_before(resize, nodes)
    together = add_constant(graph, np.array([-1, found.channels, 0, 0], np.int64), f"{name}_together")
    become(resize, "Reshape", [nodes[-1].outputs[0], together])
    resize.name, nodes[-1].name = fresh_name(graph, f"{name}_Reshape"), name  # who names the Resize means the Resize


RULE = Rule("enlarge-planes", ("Resize",), match, apply)
