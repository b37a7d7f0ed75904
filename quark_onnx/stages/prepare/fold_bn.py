"""Fold BatchNormalization into the layer that feeds it.

    k (W x + b) + s  =  (k W) x + (k b + s),      k = γ / √(σ² + ε),   s = β − k μ

Axis 1, which BatchNormalization scales, must be the layer's axis of output channels. A MatMul of rank 2 that needs a
bias becomes a Gemm; behind a MatMul of higher rank the BatchNormalization becomes an Add of s, or goes when s = 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node
from quark_onnx.graph.edit import add_constant, become, bypass, graph_of
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import is_op, sole_reader
from quark_onnx.stages.prepare.affine_layer import read
from quark_onnx.stages.prepare.batch_norm import scale_and_shift
from quark_onnx.stages.prepare.scaled_constants import Folded, after, store


class Found(NamedTuple):
    """`shift` is what the layer cannot take: it stays as an Add."""

    bn: Node
    layer: Folded
    shift: NDArray[Any] | None


def match(bn: Node) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do."""
    source = bn.inputs[0]
    node = source.producer() if source is not None else None
    if source is None or node is None:
        return Skip("no layer feeds it")
    if not is_op(node, *LAYERS):
        return Skip(f"{node.op_type} is not a layer with a weight")
    if sole_reader(source) is not bn:
        return Skip("the output of the layer is read elsewhere")
    layer = read(node)
    if isinstance(layer, Skip):
        return layer
    parameters = scale_and_shift(bn)
    if isinstance(parameters, Skip):
        return parameters
    k, s = parameters
    if layer.out != 1 or k.size != layer.channels:
        return Skip("axis 1 is not the layer's axis of output channels")
    new = after(layer, k, s)
    if isinstance(new, Skip):
        return new
    if layer.bias is not None or new.bias is None:
        return Found(bn, new, None)
    return Found(bn, new._replace(bias=None), new.bias.reshape(-1, 1) if layer.at == 0 else new.bias)


def apply(found: Found) -> None:
    """Edit only."""
    store(found.layer)
    if found.shift is None:
        bypass(found.bn)
    else:
        shift = add_constant(graph_of(found.bn), found.shift, f"{found.bn.name}_shift")
        become(found.bn, "Add", [found.bn.inputs[0], shift])


RULE = Rule("fold-bn", ("BatchNormalization",), match, apply)
