"""Gelu, BiasGelu, FastGelu and QuickGelu as ONNX has them.

    Gelu(x)            =  Gelu(x)
    BiasGelu(x, b)     =  Gelu(x + b)
    FastGelu(x, b)     =  Gelu(x + b), approximate: tanh
    QuickGelu(x, α)    =  x · Sigmoid(α x)

The bias goes into the accumulator of the product in front of it. Gelu came with operator set 20.
"""

from __future__ import annotations

from typing import NamedTuple

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node, Value
from quark_onnx.graph.edit import become, set_text
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import input_at
from quark_onnx.stages.prepare.gelu import OPSET
from quark_onnx.stages.prepare.microsoft.nodes_in_front import DOMAIN, UNKNOWN, floats, number, opset, put

GELUS = ("Gelu", "BiasGelu", "FastGelu")


class Found(NamedTuple):
    """`alpha` is that of a QuickGelu, None for the others."""

    node: Node
    x: Value
    bias: Value | None
    alpha: float | None


def match(node: Node) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do."""
    x = node.inputs[0]
    if x is None or not floats(x):
        return Skip(UNKNOWN)
    if node.op_type == "QuickGelu":
        return Found(node, x, None, node.attributes.get_float("alpha", 1.702))
    if opset(node) < OPSET:
        return Skip(f"Gelu came with operator set {OPSET}, to which the model cannot be raised")
    return Found(node, x, input_at(node, 1), None)


def apply(found: Found) -> None:
    """Edit only."""
    node, x, bias, alpha = found
    if alpha is not None:
        scaled = x if alpha == 1 else put(node, "Mul", [x, number(node, alpha, x)], x)
        become(node, "Mul", [x, put(node, "Sigmoid", [scaled], x)])
    else:
        tanh = node.op_type == "FastGelu"
        become(node, "Gelu", [x if bias is None else put(node, "Add", [x, bias], x)])
        if tanh:
            set_text(node, "approximate", "tanh")
    node.outputs[0].type, node.outputs[0].shape = x.type, x.shape


RULE = Rule("standard-gelu", (*GELUS, "QuickGelu"), match, apply, DOMAIN)
