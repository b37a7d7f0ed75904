"""Which layers fine-tuning can work on: a constant weight, the bias that may move, and the activation behind them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from quark_onnx.core.plan import Plan, Skip
from quark_onnx.graph import Model, Node, Value
from quark_onnx.graph.view import constant, input_at, is_op, sole_reader
from quark_onnx.numerics.activations import Activation
from quark_onnx.stages.finetune.functions import activation_of
from quark_onnx.stages.finetune.geometry import Geometry, geometry

BETWEEN = (
    "Pad",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
)
"""What may stand between a layer and its activation."""


@dataclass(frozen=True, eq=False)
class Unit:
    """A layer that can be tuned.

    data        name of the activation it reads
    weight      name of its weight
    bias        name of its bias, None when it has none
    movable     nobody else reads the bias: it may be re-fitted
    geometry    how positions of the activation become rows, and weights a matrix
    activation  the function behind it: errors that it swallows do not count
    """

    node: Node
    data: str
    weight: str
    bias: str | None
    movable: bool
    geometry: Geometry
    activation: Activation


def match(model: Model, plan: Plan, op_types: Collection[str]) -> tuple[dict[str, Unit], dict[str, str]]:
    """Units by node name, and the reason for every layer of these types that is none."""
    units: dict[str, Unit] = {}
    reasons: dict[str, str] = {}
    for node in model.graph:
        if not is_op(node, *op_types):
            continue
        found = _unit(node, plan)
        if isinstance(found, Skip):
            reasons[node.name or ""] = found.reason
        else:
            units[node.name or ""] = found
    return units, reasons


def _unit(node: Node, plan: Plan) -> Unit | Skip:
    name = node.name or ""
    if name not in plan.nodes:
        return Skip(f"not quantized: {plan.notes.get(name, 'excluded')}")
    at = _weight_index(node)
    if at is None:
        return Skip("both inputs are activations")
    weight, data = node.inputs[at], node.inputs[1 - at] if at == 0 else node.inputs[0]
    assert weight is not None and data is not None
    if (plan.sites[weight.name or ""].role) != "weight":
        return Skip("the weight has no integer initializer")
    shape = geometry(node, weight, data, at)
    if isinstance(shape, Skip):
        return shape
    output, bias = _bias(node, plan)
    movable = bias is not None and len(bias.uses()) == 1
    name_of_bias = None if bias is None else bias.name
    return Unit(node, data.name or "", weight.name or "", name_of_bias, movable, shape, _behind(output))


def _weight_index(node: Node) -> int | None:
    if node.op_type != "MatMul":
        return 1
    return next((i for i in (1, 0) if constant(input_at(node, i)) is not None), None)


def _bias(node: Node, plan: Plan) -> tuple[Value, Value | None]:
    """The value behind the bias, and the bias; that of a MatMul is the Add that placement let it absorb."""
    output = node.outputs[0]
    if node.op_type != "MatMul":
        return output, input_at(node, 2)
    add = sole_reader(output)
    if add is None or not is_op(add, "Add") or plan.nodes.get(add.name or "") != plan.nodes[node.name or ""]:
        return output, None
    return add.outputs[0], add.inputs[1] if add.inputs[0] is output else add.inputs[0]


def _behind(value: Value) -> Activation:
    """The activation function that follows, through operators that only move or pool values."""
    while (node := sole_reader(value)) is not None:
        found = activation_of(node)
        if found is not None:
            return found
        if not is_op(node, *BETWEEN):
            break
        value = node.outputs[0]
    return Activation()
