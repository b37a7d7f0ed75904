"""Fold Mul, Add, Sub or Div by one constant number into the layer that reads it.

    W (k x + s) + b  =  (W k) x + (W s + b)

with k and s as in `fold_affine`. Exact for a Conv only if no padding is added (padding puts zeros, not s, around the
image) or s = 0. A shift goes only where x comes from an activation function that ends near 0: elsewhere it may be what
brings the values near 0, and the range of x would hold little but the shift.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node, Value
from quark_onnx.graph.edit import bypass
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import constant, input_at, is_op, sole_reader
from quark_onnx.stages.prepare import gelu
from quark_onnx.stages.prepare.affine_layer import axes, group, pads, read
from quark_onnx.stages.prepare.fold_affine import scale_and_shift
from quark_onnx.stages.prepare.scalars import operand
from quark_onnx.stages.prepare.scaled_constants import Folded, before, store


class Found(NamedTuple):
    """`at` is the input of `affine` that varies."""

    affine: Node
    at: int
    layer: Folded


def match(affine: Node) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do."""
    found = operand(affine, "Mul", "Add", "Sub", "Div")
    if found is None or (found.at == 1 and is_op(affine, "Div")):
        return Skip("it is not an affine function of one input, with one constant number")
    node = sole_reader(affine.outputs[0])
    if node is None or not is_op(node, "Conv", "Gemm", "MatMul"):
        return Skip("its only reader is not a Conv, Gemm or MatMul")
    if not isinstance(gelu.match(affine), Skip):
        return Skip("it is a part of a Gelu, which runtimes know by all its constants")
    layer = read(node)
    if isinstance(layer, Skip):
        return layer
    number = np.asarray([found.number], np.float64)
    k, s = scale_and_shift(affine, found.at, np.repeat(number, layer.weight.shape[axes(layer)[1]] * group(node)))
    if s.any():
        if is_op(node, "Conv") and pads(node):
            return Skip("the Conv pads with zeros, which the shift would not reach")
        if layer.bias is None:
            return Skip("the MatMul has no bias for the shift")
        if not _ends_near_zero(found.source.producer()):
            return Skip("the shift may be what brings the values near 0")
    new = before(layer, k, s)
    return new if isinstance(new, Skip) else Found(affine, found.at, new)


def _ends_near_zero(node: Node | None) -> bool:
    """Whether a node is an activation function whose values end at 0, or little below."""
    if node is not None and is_op(node, "Mul"):  # by a gate
        return any(_is_gate(value) for value in node.inputs)
    return is_op(node, "Relu", "LeakyRelu", "HardSwish", "Gelu", "Mish") or _clips_at_zero(node)


def _is_gate(value: Value | None) -> bool:
    node = None if value is None else value.producer()
    return is_op(node, "Sigmoid", "HardSigmoid") or _clips_at_zero(node)


def _clips_at_zero(node: Node | None) -> bool:
    low = constant(input_at(node, 1)) if node is not None and is_op(node, "Clip") else None
    return low is not None and low.size == 1 and float(low.item()) == 0.0


def apply(found: Found) -> None:
    """Edit only."""
    store(found.layer)
    bypass(found.affine, found.at)


RULE = Rule("fold-affine-forward", ("Mul", "Add", "Sub", "Div"), match, apply)
