"""A ConstantOfShape of a known shape becomes a constant, so that what depends on it can be folded.

    ConstantOfShape([2, 3], value = v)  =  [[v v v] [v v v]]

onnxscript's folding leaves it alone to keep models small; here the size is limited instead.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node
from quark_onnx.graph.edit import add_constant, graph_of, remove, take_over
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import constant, input_at

LIMIT = 1 << 18  # elements, 1 MB of floats


class Found(NamedTuple):
    node: Node
    array: NDArray[Any]


def match(node: Node, computed: Collection[str] = ()) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do. `computed`: values that stay computed."""
    if node.outputs[0].name in computed:
        return Skip("the constant would be larger than what it is computed from")
    shape = constant(input_at(node, 0))
    if shape is None or shape.ndim != 1 or (shape < 0).any():
        return Skip("the shape is not constant")
    sizes = shape.tolist()
    if math.prod(sizes) > LIMIT:
        return Skip(f"the constant would have more than {LIMIT} elements")
    value = node.attributes.get_tensor("value")
    fill = np.zeros(1, np.float32) if value is None else value.numpy()
    if fill.size != 1:
        return Skip("the value is not one number")
    return Found(node, np.full(sizes, fill.ravel()[0], fill.dtype))


def apply(found: Found) -> None:
    """Edit only."""
    name = found.node.outputs[0].name
    array = add_constant(graph_of(found.node), found.array, f"{found.node.name}_value")
    take_over(found.node.outputs[0], array)
    remove(found.node)
    array.name = name


def rule(computed: Collection[str] = ()) -> Rule:
    """The rule, but for these values."""
    return Rule("constant-of-shape", ("ConstantOfShape",), partial(match, computed=computed), apply)


RULE = rule()
