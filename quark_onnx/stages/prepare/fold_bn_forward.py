"""Fold BatchNormalization into the layer that reads it.

    W (k x + s) + b  =  (W k) x + (W s + b),      k = γ / √(σ² + ε),   s = β − k μ

Exact for a Conv only if no padding is added (padding puts zeros, not s, around the image) or s = 0; for a Gemm if A is
not transposed; for a MatMul if axis 1 is the one summed over: X of rank 2 on the left, or of rank 3 on the right. If
s ≠ 0 the MatMul must be of rank 2: it becomes a Gemm.
"""

from __future__ import annotations

from typing import NamedTuple

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node
from quark_onnx.graph.edit import bypass
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import is_op, rank, sole_reader
from quark_onnx.stages.prepare.affine_layer import Array, Layer, axes, group, pads, read
from quark_onnx.stages.prepare.batch_norm import scale_and_shift
from quark_onnx.stages.prepare.scaled_constants import Folded, before, store


class Found(NamedTuple):
    bn: Node
    layer: Folded


def match(bn: Node) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do."""
    node = sole_reader(bn.outputs[0])
    if node is None or not is_op(node, "Conv", "Gemm", "MatMul"):
        return Skip("its only reader is not a Conv, Gemm or MatMul")
    layer = read(node)
    if isinstance(layer, Skip):
        return layer
    parameters = scale_and_shift(bn)
    if isinstance(parameters, Skip):
        return parameters
    k, s = parameters
    refusal = _refusal(layer, bn, k, bool(s.any()))
    if refusal is not None:
        return refusal
    new = before(layer, k, s)
    return new if isinstance(new, Skip) else Found(bn, new)


def _refusal(layer: Layer, bn: Node, k: Array, shifted: bool) -> Skip | None:
    """Why the fold would not be exact."""
    node = layer.node
    if is_op(node, "Conv"):
        if shifted and pads(node):
            return Skip("the Conv pads with zeros, which the shift would not reach")
    elif is_op(node, "Gemm"):
        if node.attributes.get_int("transA", 0):
            return Skip("the Gemm transposes its data")
    elif is_op(node, "MatMul") and rank(bn.inputs[0]) != (2 if layer.at == 1 else 3):
        return Skip("axis 1 is not the axis that the MatMul sums over")
    if shifted and layer.bias is None:
        return Skip("the MatMul has no bias for the shift")
    if k.size != layer.weight.shape[axes(layer)[1]] * group(node):
        return Skip("the number of channels is not the layer's")
    return None


def apply(found: Found) -> None:
    """Edit only."""
    store(found.layer)
    bypass(found.bn)


RULE = Rule("fold-bn-forward", ("BatchNormalization",), match, apply)
