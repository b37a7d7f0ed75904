"""Which layers can be tuned: a constant weight, the bias that may move, and the activation function behind them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from quark_onnx.core.plan import Plan, Skip
from quark_onnx.engine.layers.matrix_geometry import Geometry, geometry
from quark_onnx.engine.layers.node_activation import activation_of
from quark_onnx.graph import Model, Node, Value
from quark_onnx.graph.view import constant, input_at, is_op, rank, sole_reader
from quark_onnx.numerics.activation_functions import Activation, LeakyRelu, PRelu

POOLS = ("Pad", "MaxPool", "AveragePool", "GlobalAveragePool")

BETWEEN = (*POOLS, "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze")
"""What may stand between a layer and its activation."""


@dataclass(frozen=True, eq=False)
class Unit:
    """A layer that can be tuned.

    data        name of the activation it reads
    weight      name of its weight
    bias        name of its bias, None when it has none
    movable     nobody else reads the bias: it may be re-fitted
    geometry    how positions of the activation become rows, and weights a matrix
    output      what it computes, bias included
    activation  the function behind it: errors that it swallows do not count
    """

    node: Node
    data: str
    weight: str
    bias: str | None
    movable: bool
    geometry: Geometry
    output: Value
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
    for name, reason in _alone(model, plan, units).items():
        reasons[name] = reason
        del units[name]
    return units, reasons


def _alone(model: Model, plan: Plan, units: Mapping[str, Unit]) -> dict[str, str]:
    """Why layers cannot be tuned together with the others that read their weight."""
    reasons = {}
    for name, unit in units.items():
        readers = {n.name or "" for n in model.graph.initializers[unit.weight].consumers()}
        others = {n for n in readers - units.keys() if unit.weight in plan.nodes.get(n, ())}
        unlike = {n for n in readers & units.keys() if units[n].geometry.layout != unit.geometry.layout}
        if others:
            reasons[name] = f"shares its weight with {min(others)!r}, which cannot be tuned"
        elif unlike:
            reasons[name] = f"shares its weight with {min(unlike)!r}, which has other groups"
    return reasons


def _unit(node: Node, plan: Plan) -> Unit | Skip:
    name = node.name or ""
    if name not in plan.nodes:
        return Skip(f"not quantized: {plan.notes.get(name, 'excluded')}")
    at = _weight_index(node)
    if at is None:
        return Skip("both inputs are activations")
    weight, data = node.inputs[at], node.inputs[1 - at] if at == 0 else node.inputs[0]
    assert weight is not None and data is not None
    site = plan.sites.get(weight.name or "")
    if site is None or site.role != "weight":
        return Skip("the weight has no integer initializer")
    shape = geometry(node, weight, data, at)
    if isinstance(shape, Skip):
        return shape
    output, bias = _bias(node, plan, at)
    movable = bias is not None and len(bias.uses()) == 1
    name_of_bias = None if bias is None else bias.name
    activation = _per_row(*_behind(output), node, weight, shape)
    return Unit(node, data.name or "", weight.name or "", name_of_bias, movable, shape, output, activation)


def _weight_index(node: Node) -> int | None:
    if node.op_type != "MatMul":
        return 1
    return next((i for i in (1, 0) if constant(input_at(node, i)) is not None), None)


def _bias(node: Node, plan: Plan, at: int) -> tuple[Value, Value | None]:
    """The value behind the bias, and the bias; that of a MatMul is the Add that placement let it absorb.

    Behind a weight on the left (`at` is 0) the Add goes along columns of the activation: it is no bias of the weight.
    """
    output = node.outputs[0]
    if node.op_type != "MatMul":
        return output, input_at(node, 2)
    add = sole_reader(output) if at == 1 else None
    if add is None or not is_op(add, "Add") or plan.nodes.get(add.name or "") != plan.nodes[node.name or ""]:
        return output, None
    return add.outputs[0], add.inputs[1] if add.inputs[0] is output else add.inputs[0]


def _behind(value: Value) -> tuple[Activation, bool]:
    """The activation function that follows, through operators that only move or pool values, and whether they move."""
    moved = False
    while (node := sole_reader(value)) is not None:
        found = activation_of(node)
        if found is not None:
            return found, moved
        if not is_op(node, *BETWEEN):
            break
        moved |= not is_op(node, *POOLS)
        value = node.outputs[0]
    return Activation(), moved


def _per_row(found: Activation, moved: bool, node: Node, weight: Value, geometry: Geometry) -> Activation:
    """The function with the slopes of a PRelu by row of the weight; the identity where they are not one per row."""
    if not isinstance(found, PRelu):
        return found
    slope, ndim = found.alpha, rank(node.outputs[0])
    if slope.size == 1:
        return LeakyRelu(slope.item())
    if moved or ndim is None or slope.ndim > ndim:
        return Activation()
    axis = ndim - (2 if node.inputs[0] is weight else 1) if node.op_type == "MatMul" else 1
    array = constant(weight)
    assert array is not None
    shape = geometry.rows(array).shape[:2]
    wanted = [1] * ndim
    wanted[axis] = shape[0] * shape[1]
    full = [1] * (ndim - slope.ndim) + list(slope.shape)
    return PRelu(slope.reshape(shape)) if full == wanted else Activation()
