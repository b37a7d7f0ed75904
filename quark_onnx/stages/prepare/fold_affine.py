"""Fold Mul, Add, Sub or Div by a constant into the layer that feeds it.

    k (W x + b) + s  =  (k W) x + (k b + s)

with k, s = c, 0 for y·c,  1/c, 0 for y/c,  1, c for y + c,  1, −c for y − c  and  −1, c for c − y.
The constant must be a scalar or have one value per output channel, and must not widen the output by broadcasting.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node
from quark_onnx.graph.edit import bypass
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import constant, is_constant, is_op, sole_reader
from quark_onnx.stages.prepare.affine_layer import Array, read
from quark_onnx.stages.prepare.scaled_constants import Folded, after, per_channel, store


class Found(NamedTuple):
    """`at` is the input that comes from the layer."""

    affine: Node
    at: int
    layer: Folded


def match(affine: Node) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do."""
    at = 0 if is_constant(affine.inputs[1]) else 1
    source, array = affine.inputs[at], constant(affine.inputs[1 - at])
    node = None if source is None else source.producer()
    if source is None or node is None or array is None or not is_op(node, *LAYERS):
        return Skip("it is not a layer's output and a constant")
    if at == 1 and is_op(affine, "Div"):
        return Skip("it divides by the layer's output")
    if sole_reader(source) is not affine:
        return Skip("the output of the layer is read elsewhere")
    layer = read(node)
    if isinstance(layer, Skip):
        return layer
    c = per_channel(layer, array)
    if isinstance(c, Skip):
        return c
    k, s = scale_and_shift(affine, at, c)
    if s.any() and is_op(node, "MatMul"):
        return Skip("a MatMul has no bias")
    new = after(layer, k, s)
    return new if isinstance(new, Skip) else Found(affine, at, new)


@np.errstate(all="ignore")  # what is divided by zero is refused
def scale_and_shift(affine: Node, at: int, c: Array) -> tuple[Array, Array]:
    """(k, s) of an operator with a constant c whose other input is number `at`."""
    ones, zeros = np.ones_like(c), np.zeros_like(c)
    if is_op(affine, "Mul"):
        return c, zeros
    if is_op(affine, "Div"):
        return 1 / c, zeros
    if is_op(affine, "Sub"):
        return (ones, -c) if at == 0 else (-ones, c)
    return ones, c


def apply(found: Found) -> None:
    """Edit only."""
    store(found.layer)
    bypass(found.affine, found.at)


RULE = Rule("fold-affine", ("Mul", "Add", "Sub", "Div"), match, apply)
