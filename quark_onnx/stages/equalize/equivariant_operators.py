"""Operators f that a positive factor per channel goes through: f(t x) = t f(x), with the limits under which it does.

Some also let a shift through, f(x + c) = f(x) + c, on values that stay positive: that is what absorbing a bias needs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node
from quark_onnx.graph.channels import reduces_positions_only
from quark_onnx.graph.view import constant, input_at, is_op


def _always(node: Node) -> None:
    """Relu, pooling, Identity: no limits."""


def _slopes(node: Node) -> Skip | None:
    return None if constant(input_at(node, 1)) is not None else Skip("its slopes are not constant")


def _reduced(node: Node) -> Skip | None:
    return None if reduces_positions_only(node) else Skip("it reduces channels, or its axes are unknown")


def _padded(node: Node) -> Skip | None:
    """Zeros or copies around the positions; nothing around the channels."""
    value, fill, axes = (input_at(node, index) for index in (1, 2, 3))
    pads = constant(value)
    if pads is None or axes is not None:
        return Skip("its pads are not constant or not given for all axes")
    if pads.reshape(2, -1)[:, :2].any():
        return Skip("it pads the channels")
    number = np.zeros(1) if fill is None else constant(fill)
    if node.attributes.get_string("mode", "constant") == "constant" and (number is None or number.any()):
        return Skip("it pads with another value than 0")
    return None


def _clipped(node: Node) -> Skip | None:
    """Between bounds that the factors have to stay within; 0 is one at any scale."""
    low, high = clip_bounds(node)
    if low is None or high is None:
        return Skip("its bounds are not constant")
    return None if low <= 0 < high else Skip("0 is outside of its bounds")


def clip_bounds(node: Node) -> tuple[float | None, float | None]:
    """The bounds of a Clip; None where they are not constant."""
    if "min" in node.attributes or "max" in node.attributes:  # before operator set 11
        return None, None
    return _number(node, 1, -np.inf), _number(node, 2, np.inf)


def _number(node: Node, index: int, default: float) -> float | None:
    value = input_at(node, index)
    array = np.asarray(default) if value is None else constant(value)
    return None if array is None or array.size != 1 else float(array.reshape(-1)[0])


PASSES: dict[str, Callable[[Node], Skip | None]] = {
    "Relu": _always,
    "LeakyRelu": _always,
    "PRelu": _slopes,
    "Clip": _clipped,
    "Identity": _always,
    "MaxPool": _always,
    "AveragePool": _always,
    "GlobalAveragePool": _always,
    "GlobalMaxPool": _always,
    "ReduceMean": _reduced,
    "Pad": _padded,
}
"""Operators with one activation, whose channels stay where they are; each says why not, or nothing."""

SUMS = ("Add", "Sub", "Sum")
"""All their inputs must carry the same factor."""

SHAPES = ("Shape", "Size")
"""They read no values."""


def why_no_shift(node: Node) -> str | None:
    """Why a shift of positive values does not go through this operator, one of `PASSES` or `SUMS`; None if it does."""
    if is_op(node, *SUMS):
        return "it is one of several summands"
    zeros = is_op(node, "Pad") and node.attributes.get_string("mode", "constant") == "constant"
    if zeros or (is_op(node, "AveragePool") and node.attributes.get_int("count_include_pad")):
        return f"{node.op_type} {node.name!r} fills in zeros"
    return None


def why_no_bias(node: Node) -> str | None:
    """Why a shift of all inputs of this layer is not a shift of its bias; None if it is."""
    if is_op(node, "ConvTranspose"):
        return f"{node.name!r} reads fewer inputs at its borders"
    if any(node.attributes.get_float(name, 1.0) != 1 for name in ("alpha", "beta")):
        return f"the alpha or beta of {node.name!r} is not 1"
    padded = any(node.attributes.get_ints("pads", ())) or node.attributes.get_string("auto_pad", "").startswith("SAME")
    return f"{node.name!r} pads its input with zeros" if padded else None
