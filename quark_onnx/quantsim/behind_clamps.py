"""Where the values of an activation that count are seen: behind the Relu or Clip that alone reads it.

What a Clip cuts off is lost whether or not the grid in front of it has room for it. A range that is chosen of what the
Clip lets through spends no codes on the rest: the convolutions channel by channel of a MobileNet, which AIMET gives a
quantizer of their own in front of Clip(0, 6), reach from −50 to 60, and would have 8 bits for that.
"""

from __future__ import annotations

from collections.abc import Iterable

from quark_onnx.graph import Model, Node, Value
from quark_onnx.graph.view import is_constant, is_op, sole_reader


def passed(model: Model, tensors: Iterable[str]) -> dict[str, str]:
    """Each tensor → the one whose values its range is to be chosen of: itself, or the output of the Relu or Clip."""
    values = {value.name or "": value for node in model.graph for value in node.outputs}
    return {tensor: (_behind(values[tensor]) if tensor in values else tensor) for tensor in tensors}


def _behind(value: Value) -> str:
    while (reader := sole_reader(value)) is not None and _cuts(reader, value):
        value = reader.outputs[0]
    return value.name or ""


def _cuts(node: Node, value: Value) -> bool:
    """Whether the node gives back the value, cut off at constant bounds on either side of zero."""
    bounds = [bound for bound in node.inputs[1:] if bound is not None]
    return is_op(node, "Relu", "Clip") and node.inputs[0] is value and all(map(is_constant, bounds))
