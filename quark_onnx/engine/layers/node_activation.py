"""The activation function that a node computes, as far as its parameters are constant."""

from __future__ import annotations

import math

from quark_onnx.graph import Node
from quark_onnx.graph.view import constant, input_at, is_op
from quark_onnx.numerics import activation_functions as f

SIMPLE: dict[str, type[f.Activation]] = {"Relu": f.Relu, "Sigmoid": f.Sigmoid, "HardSwish": f.HardSwish, "Tanh": f.Tanh}


def activation_of(node: Node) -> f.Activation | None:
    """The function of an activation node, None for any other node. A PRelu has its slope as the model has it."""
    number = node.attributes.get_float
    if is_op(node, *SIMPLE):
        make: type[f.Activation] = SIMPLE[node.op_type]
        return make()
    if is_op(node, "Clip"):
        return _clip(node)
    if is_op(node, "LeakyRelu"):
        return f.LeakyRelu(number("alpha", 0.01))
    if is_op(node, "PRelu"):
        slope = constant(input_at(node, 1))
        return None if slope is None else f.PRelu(slope.astype("float32"))
    if is_op(node, "HardSigmoid"):
        alpha = number("alpha", 0.2)
        return f.HardSigmoid(alpha, number("beta", 0.5)) if alpha > 0 else None
    if is_op(node, "Gelu"):
        return f.Gelu(node.attributes.get_string("approximate", "none") == "tanh")
    return None


def _clip(node: Node) -> f.Activation | None:
    low, high = (constant(input_at(node, i)) for i in (1, 2))
    if any(input_at(node, i) is not None and bound is None for i, bound in ((1, low), (2, high))):
        return None
    return f.Clip(-math.inf if low is None else low.item(), math.inf if high is None else high.item())
