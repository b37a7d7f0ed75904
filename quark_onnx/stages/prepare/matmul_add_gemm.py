"""A MatMul with a constant right side and an Add of a constant per column become a Gemm.

    X W + b,   X of rank 2   =   Gemm(X, W, b)

onnxruntime has an integer kernel for Gemm with its bias; a MatMul and an Add would need a quantizer between them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node
from quark_onnx.graph.edit import bypass
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import constant, is_constant, is_op, sole_reader
from quark_onnx.stages.prepare.affine_layer import read
from quark_onnx.stages.prepare.scaled_constants import Folded, after, per_channel, store


class Found(NamedTuple):
    """`at` is the input of the Add that comes from the MatMul."""

    add: Node
    at: int
    layer: Folded


def match(add: Node) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do."""
    at = 0 if is_constant(add.inputs[1]) else 1
    source, array = add.inputs[at], constant(add.inputs[1 - at])
    node = None if source is None else source.producer()
    if source is None or node is None or array is None or not is_op(node, "MatMul"):
        return Skip("it is not a MatMul's output and a constant")
    if sole_reader(source) is not add:
        return Skip("the output of the MatMul is read elsewhere")
    layer = read(node)
    if isinstance(layer, Skip):
        return layer
    if layer.bias is None:
        return Skip("the MatMul is not known to be of rank 2 with a constant right side")
    bias = per_channel(layer, array)
    if isinstance(bias, Skip):
        return bias
    new = after(layer, np.ones(layer.channels), bias)
    return new if isinstance(new, Skip) else Found(add, at, new)


def apply(found: Found) -> None:
    """Edit only."""
    store(found.layer)
    bypass(found.add, found.at)


RULE = Rule("matmul-add-gemm", ("Add",), match, apply)
