"""FusedConv and FusedGemm as the layer and the activation function that onnxruntime's optimizer made them of.

    FusedConv(X, W, B, Z)  =  f(Conv(X, W, B) + Z)
    FusedGemm(A, B, C)     =  f(Gemm(A, B, C))

What f needs stands in a list, of a Gemm in attributes of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node, Value
from quark_onnx.graph.edit import become, set_float
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import input_at
from quark_onnx.stages.prepare.microsoft.nodes_in_front import DOMAIN, UNKNOWN, floats, number, put

SETTINGS: Mapping[str, tuple[str, ...]] = {
    "Clip": ("min", "max"),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
}
"""Activation functions, and what their numbers are."""

_OF_GEMM = ("activation_alpha", "activation_beta")


class Found(NamedTuple):
    """`numbers` are those that `function` takes, as many as it has; `added` is Z."""

    node: Node
    layer: str
    inputs: tuple[Value | None, ...]
    added: Value | None
    function: str
    numbers: tuple[float, ...]


def match(node: Node) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do."""
    layer, function = node.op_type.removeprefix("Fused"), node.attributes.get_string("activation", "")
    if not floats(node.inputs[0]) or node.inputs[0] is None:
        return Skip(UNKNOWN)
    if function not in SETTINGS:
        return Skip(f"its activation function is {function or 'missing'}")
    wanted = len(SETTINGS[function])
    if layer == "Conv":
        numbers = tuple(node.attributes.get_floats("activation_params", ()))
    else:
        numbers = tuple(node.attributes.get_float(name, 0.0) for name in _OF_GEMM[:wanted] if name in node.attributes)
    if len(numbers) != wanted:
        return Skip(f"{function} takes {wanted} numbers, and it has {len(numbers)}")
    added = input_at(node, 3) if layer == "Conv" else None
    return Found(node, layer, tuple(node.inputs[:3]), added, function, numbers)


def apply(found: Found) -> None:
    """Edit only."""
    node, like = found.node, found.inputs[0]
    assert like is not None
    own = {name: value for name, value in node.attributes.items() if not name.startswith("activation")}
    out = put(node, found.layer, found.inputs, attributes=own)
    out.type = like.type
    if found.added is not None:
        out = put(node, "Add", [out, found.added])
        out.type = like.type
    if found.function == "Clip":
        become(node, "Clip", [out, *(number(node, bound, like) for bound in found.numbers)])
        return
    become(node, found.function, [out])
    for name, value in zip(SETTINGS[found.function], found.numbers, strict=True):
        set_float(node, name, value)


RULE = Rule("standard-fused-layer", ("FusedConv", "FusedGemm"), match, apply, DOMAIN)
