"""The quantized model of a plan with inputs for what is trained: it computes what the one that is written computes.

A weight or a bias comes in as the values that its integers stand for; the scale of a group of activations as a number,
of which the ends of a Clip in front of a narrow quantizer are multiples.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Plan, QParams, Site
from quark_onnx.engine.apply_plan import Writer
from quark_onnx.graph import Graph, Model, Node, Value, io
from quark_onnx.graph.edit import add_constant, add_input, forget_types, new_node, read_instead
from quark_onnx.graph.passes import remove_unused
from quark_onnx.graph.view import constant, input_at, is_op, shape
from quark_onnx.numerics.quantizer import code_limits

FLOATS = {
    **dict.fromkeys(LAYERS, (2,)),
    **dict.fromkeys(
        ("LayerNormalization", "InstanceNormalization", "GroupNormalization", "BatchNormalization"), (1, 2)
    ),
    "RMSNormalization": (1,),
}
"""Operator → inputs that are trained where they stay floats: biases, and what normalizations multiply by and add."""


@dataclass(frozen=True)
class Trainable:
    """A model, and its inputs besides those of the user's.

    weights  tensor of the plan → the input that takes its dequantized values
    biases   likewise, int32 and float ones; scale and bias of float normalizations, too
    scales   group of activations → the input that takes its scale
    """

    model: Model
    weights: dict[str, str]
    biases: dict[str, str]
    scales: dict[str, str]


def trainable(model: Model, plan: Plan) -> Trainable:
    """The quantized model of a plan, open for what is trained. `model`, the prepared one, is left as it is.

    Raises:
        PlanError: the plan is not complete.
    """
    quantized = io.copy(model)
    opened = {}
    for value in _float_parameters(quantized.graph, plan.sites):
        given = add_input(quantized.graph, "float32", shape(value) or (), f"{value.name}_trained")
        read_instead(value, given)
        opened[value.name or ""] = given.name or ""
    known = {tensor: array for tensor, array in plan.values.items() if tensor not in opened}
    writer = _TrainingWriter(quantized.graph, replace(plan, values=known))
    writer.write()
    remove_unused(quantized)
    forget_types(quantized.graph)
    return Trainable(quantized, writer.weights, {**writer.biases, **opened}, writer.scales)


class _TrainingWriter(Writer):
    """Writes inputs where the other one writes integers and scales."""

    def __init__(self, graph: Graph, plan: Plan) -> None:
        super().__init__(graph, plan)
        self.weights: dict[str, str] = {}
        self.biases: dict[str, str] = {}
        self.scales: dict[str, str] = {}
        self._fed: dict[str, Value] = {}

    def _dequantized(self, site: Site, codes: NDArray[Any], parameters: list[Value]) -> None:
        value = self.values[site.tensor]
        into = self.biases if site.role == "bias" else self.weights
        array = self._array(site)
        dims = array.shape if array.size == codes.size else codes.shape  # one bias of all channels has a code for each
        given = add_input(self.graph, "float32", dims, f"{site.tensor}_dequantized")
        into[site.tensor] = given.name or ""
        keep = [node for node in value.consumers() if self._reads_float(value, node)]
        read_instead(value, given, keep=keep)

    def _scale_and_zero_point(self, site: Site, q: QParams) -> list[Value]:
        scale, zero_point = super()._scale_and_zero_point(site, q)
        if site.role != "activation":
            return [scale, zero_point]
        return [self._scale(site), zero_point]

    def _scale(self, site: Site) -> Value:
        if site.group not in self._fed:
            self._fed[site.group] = add_input(self.graph, "float32", [], f"{site.group}_trained_scale")
            self.scales[site.group] = self._fed[site.group].name or ""
        return self._fed[site.group]

    def _clip(self, value: Value, site: Site, q: QParams) -> Node:
        """As `numerics.quantizer.clip_bounds` has it, of a scale that is fed."""
        ends = []
        for code, end in zip(code_limits(site.format), ("low", "high"), strict=True):
            steps = add_constant(self.graph, np.float32(code) - q.zero_point.astype(np.float32), f"{site.tensor}_{end}")
            product = new_node(
                self.graph, "Mul", [self._scale(site), steps], f"{site.tensor}_Mul", f"{site.tensor}_end"
            )
            self.graph.insert_before(self.first, product)
            ends.append(product.outputs[0])
        return new_node(self.graph, "Clip", [value, *ends], f"{site.tensor}_Clip", f"{site.tensor}_clipped")


def _float_parameters(graph: Graph, quantized: Collection[str]) -> list[Value]:
    """Biases of layers that are not quantized, and parameters of normalizations, each once."""
    found: dict[str, Value] = {}
    for node in graph:
        for value in [input_at(node, position) for position in FLOATS.get(node.op_type, ())] + _added(node):
            name, array = "" if value is None else value.name or "", constant(value)
            if value is not None and array is not None and array.dtype == np.float32 and name not in quantized:
                found[name] = value
    return [value for value in found.values() if value.is_initializer() and not value.is_graph_output()]


def _added(node: Node) -> list[Value | None]:
    """The bias that stands behind a MatMul."""
    if not is_op(node, "Add"):
        return []
    left, right = node.inputs
    products = [value for value in (left, right) if value is not None and is_op(value.producer(), "MatMul")]
    return [value for value in (left, right) if value not in products] if products else []
