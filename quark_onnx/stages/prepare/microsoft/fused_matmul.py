"""FusedMatMul as the product that it is.

    FusedMatMul(A, B)  =  α A' B',     A' and B' with their last two axes swapped where transA and transB say so

α goes into a side that is constant, as the transposition does: both are folded.
"""

from __future__ import annotations

from typing import NamedTuple

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node, Value
from quark_onnx.graph.edit import become
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import is_constant, rank
from quark_onnx.stages.prepare.microsoft.nodes_in_front import DOMAIN, UNKNOWN, floats, number, put


class Found(NamedTuple):
    """`sides` are both factors, each with whether it is transposed."""

    node: Node
    alpha: float
    sides: tuple[tuple[Value, bool], ...]


def match(node: Node) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do."""
    if any(node.attributes.get_int(name, 0) for name in ("transBatchA", "transBatchB")):
        return Skip("it moves its first axis")
    sides = []
    for value, name in zip(node.inputs, ("transA", "transB"), strict=True):
        swapped = bool(node.attributes.get_int(name, 0))
        if value is None or not floats(value) or rank(value) is None:
            return Skip(UNKNOWN)
        sides.append((value, swapped and (rank(value) or 0) > 1))
    return Found(node, node.attributes.get_float("alpha", 1.0), tuple(sides))


def apply(found: Found) -> None:
    """Edit only."""
    node, alpha = found.node, found.alpha
    sides = [_swapped(node, value) if swapped else value for value, swapped in found.sides]
    fixed = [at for at, (value, _) in enumerate(found.sides) if is_constant(value)]
    if alpha != 1 and fixed:
        side = sides[fixed[0]]
        sides[fixed[0]] = put(node, "Mul", [side, number(node, alpha, side)], side)
    if alpha == 1 or fixed:
        become(node, "MatMul", sides)
    else:
        product = put(node, "MatMul", sides, node.outputs[0])
        product.type = sides[0].type
        become(node, "Mul", [product, number(node, alpha, sides[0])])
    node.outputs[0].type = sides[0].type


def _swapped(node: Node, value: Value) -> Value:
    axes = list(range(rank(value) or 0))
    axes[-2:] = axes[:-3:-1]
    out = put(node, "Transpose", [value], attributes={"perm": axes})
    out.type = value.type
    return out


RULE = Rule("standard-fused-matmul", ("FusedMatMul",), match, apply, DOMAIN)
