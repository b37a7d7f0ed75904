"""Normalizations that add before they normalize, and those that do not center.

    SkipLayerNormalization(x, s, γ, β, b)       =  LayerNormalization(x + b + s, γ, β)
    SkipSimplifiedLayerNormalization(x, s, γ, b) =  rms(x + b + s) · γ
    SimplifiedLayerNormalization(x, γ)          =  rms(x) · γ,        rms(h) = h / √(mean(h²) + ε)

Their fourth output is the sum. b goes with the product that one of x and s is, into its accumulator. rms is written as
exporters write it, in operators of any operator set; LayerNormalization came with 17.
"""

from __future__ import annotations

from typing import NamedTuple

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node, Value
from quark_onnx.graph.edit import become, set_float, take_over
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import input_at, is_op
from quark_onnx.stages.prepare.microsoft.nodes_in_front import (
    DOMAIN,
    UNKNOWN,
    floats,
    integers,
    is_read,
    number,
    opset,
    put,
)

OPSET = 17
"""The operator set that brought LayerNormalization."""

_AXES_ARE_INPUTS = 18  # of ReduceMean

CENTERED = "SkipLayerNormalization"

DEFAULT_EPSILON = 1e-12

_ALONE = 1e-5  # ε of a normalization that adds nothing


class Found(NamedTuple):
    """Normalizes `x`, after `added`, where there are any, in order; `beta`: None also where it does not center."""

    node: Node
    x: Value
    added: tuple[Value, ...]
    gamma: Value
    beta: Value | None


def match(node: Node) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do."""
    x, skip, gamma = node.inputs[0], node.inputs[1], input_at(node, 2)
    if x is None or skip is None or gamma is None or not floats(gamma):
        return Skip(UNKNOWN)
    if is_read(node, 1, 2):
        return Skip("its mean or deviation is read")
    if node.op_type == CENTERED and opset(node) < OPSET:
        return Skip(f"LayerNormalization came with operator set {OPSET}, to which the model cannot be raised")
    bias = input_at(node, 4 if node.op_type == CENTERED else 3)
    if bias is not None and is_op(skip.producer(), "MatMul") and not is_op(x.producer(), "MatMul"):
        x, skip = skip, x
    added = (skip,) if bias is None else (bias, skip)
    return Found(node, x, added, gamma, input_at(node, 3) if node.op_type == CENTERED else None)


def match_simplified(node: Node) -> Found | Skip:
    """The same of one that adds nothing."""
    x, gamma = node.inputs[0], node.inputs[1]
    if x is None or gamma is None or not floats(gamma):
        return Skip(UNKNOWN)
    if is_read(node, 1) or node.attributes.get_int("axis", -1) != -1:
        return Skip("its deviation is read, or it normalizes more than the last axis")
    return Found(node, x, (), gamma, None)


def apply(found: Found) -> None:
    """Edit only."""
    node, like = found.node, found.node.inputs[0]
    default = DEFAULT_EPSILON if found.added else _ALONE
    epsilon, centered = node.attributes.get_float("epsilon", default), node.op_type == CENTERED
    total = found.x
    for value in found.added:
        total = put(node, "Add", [total, value], like if value is found.added[-1] else None)
    if is_read(node, 3):
        take_over(node.outputs[3], total)
    if centered:
        center(node, total, found.gamma, found.beta, epsilon)
    else:
        _scale(node, total, found.gamma, epsilon)
    node.outputs[0].type, node.outputs[0].shape = total.type, total.shape


def center(node: Node, x: Value, gamma: Value, beta: Value | None, epsilon: float) -> None:
    """The node becomes LayerNormalization(x) along the last axis."""
    become(node, "LayerNormalization", [x, gamma, *([] if beta is None else [beta])])
    set_float(node, "epsilon", epsilon)


def _scale(node: Node, x: Value, gamma: Value, epsilon: float) -> None:
    """The node becomes the last of those that compute rms(x) · γ."""
    square = put(node, "Pow", [x, number(node, 2, gamma)], x)
    if opset(node) < _AXES_ARE_INPUTS:
        mean = put(node, "ReduceMean", [square], attributes={"axes": [-1]})
    else:
        mean = put(node, "ReduceMean", [square, integers(node, -1)])
    root = put(node, "Sqrt", [put(node, "Add", [mean, number(node, epsilon, gamma)])])
    become(node, "Mul", [put(node, "Div", [x, root], x), gamma])


RULE = Rule("standard-skip-norm", (CENTERED, "SkipSimplifiedLayerNormalization"), match, apply, DOMAIN)

SIMPLIFIED = Rule("standard-rms-norm", ("SimplifiedLayerNormalization",), match_simplified, apply)
