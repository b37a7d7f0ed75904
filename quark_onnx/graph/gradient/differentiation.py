"""Reverse-mode differentiation: behind the nodes of a model, those that compute gradients.

Nodes are visited from the last to the first. Each gets the sum of what its readers send back, in the order in which
they are visited, so that the same model gives the same bytes, and its rule sends on what somebody asks for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from quark_onnx.core.errors import ConfigError, ModelError, nearest
from quark_onnx.core.plan import Skip
from quark_onnx.graph import passes
from quark_onnx.graph.edit import fresh_name, remove_unread
from quark_onnx.graph.element_types import infer_types
from quark_onnx.graph.gradient.quantizers import RANGES
from quark_onnx.graph.gradient.step import Constants, Gradients, Step
from quark_onnx.graph.gradient.table import ALL_OUTPUTS, RULES
from quark_onnx.graph.io import copy
from quark_onnx.graph.opset import fit_opset, own_opset
from quark_onnx.graph.segments import reads
from quark_onnx.graph.view import FLOATS, is_op

FIRST_OPSET = 16
"""The first whose ScatterElements adds."""


@dataclass(frozen=True)
class Stop:
    """A node that the gradient does not go through, and why; what is in front of it stays as it is."""

    node: str
    op_type: str
    reason: str


@dataclass(frozen=True)
class Differentiated:
    """A model that computes gradients, too.

    model      the nodes of the given one, with its outputs, and the way back behind them
    incoming   tensor → the input that takes the gradient of the loss by it
    gradients  tensor → the output with the gradient of the loss by it
    unreached  tensors asked for that the loss does not depend on, or not through nodes that have a rule
    stops      in order of the graph
    """

    model: ir.Model
    incoming: Mapping[str, str]
    gradients: Mapping[str, str]
    unreached: tuple[str, ...]
    stops: tuple[Stop, ...]


def differentiate(model: ir.Model, of: Sequence[str], by: Sequence[str]) -> Differentiated:
    """The gradients of a loss, of which its gradients by some tensors are fed, by other tensors.

    Args:
        of: tensors that the loss depends on: outputs of the model, or any inside. A scalar loss is fed 1.
        by: inputs, initializers or what nodes compute. Initializers among them become inputs with a default.

    Raises:
        ConfigError: a tensor is not in the graph, or not of floating-point numbers.
        ModelError: the model cannot be brought to opset 16.
    """
    made = copy(model)
    passes.lift(made)
    raise_opset(made)
    infer_types(made)
    way = _WayBack(made.graph)
    incoming = {name: way.feed(name) for name in dict.fromkeys(of)}
    wanted = {name: _tensor(way.values, name) for name in dict.fromkeys(by)}
    for value in wanted.values():
        if value.is_initializer() and not value.is_graph_input():
            made.graph.inputs.append(value)
    way.go(list(wanted.values()))
    found = {name: way.returned(value) for name, value in wanted.items()}
    way.tidy()
    gradients = {name: gradient for name, gradient in found.items() if gradient is not None}
    unreached = tuple(name for name in found if name not in gradients)
    return Differentiated(made, incoming, gradients, unreached, tuple(reversed(way.stops)))


def raise_opset(model: ir.Model) -> None:
    """Bring a model to the first opset that gradients can be written in, in place.

    Raises:
        ModelError: it cannot be brought there.
    """
    given = own_opset(model) or FIRST_OPSET
    try:
        fit_opset(model, FIRST_OPSET, max(given, FIRST_OPSET))
    except ModelError as error:
        raise ModelError(
            f"gradients need opset {FIRST_OPSET}, to which the model, of opset {given}, cannot be raised; export "
            f"it again with opset {FIRST_OPSET} or newer"
        ) from error


class _WayBack:
    """The nodes that are there, and what has been written behind them."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph, self.nodes = graph, list(graph)
        self.values = ir.convenience.create_value_mapping(graph, include_subgraphs=False)
        self.stops: list[Stop] = []
        self._parts: dict[ir.Value, list[ir.Value]] = defaultdict(list)
        self._sums: dict[ir.Value, ir.Value] = {}
        self._kinds: dict[ir.Value, ir.DataType] = {}
        self._constants: Constants = {}

    def feed(self, name: str) -> str:
        """A new input with the gradient by a tensor; its name."""
        value = _tensor(self.values, name)
        given = ir.Value(name=fresh_name(self.graph, f"{name}_incoming"), type=value.type, shape=value.shape)
        self.graph.inputs.append(given)
        self._add(value, given, _kind(value))
        return str(given.name)

    def go(self, wanted: Sequence[ir.Value]) -> None:
        """From the last node to the first."""
        varying = self._varying(wanted)
        for node in reversed(self.nodes):
            positions = frozenset(index for index, value in enumerate(node.inputs) if value in varying)
            if not any(output in self._parts for output in node.outputs):
                continue
            if not positions:
                if any(value in varying for value in reads((node,))):
                    self._stop(node, "its bodies read what the gradient is asked for")
                continue
            self._visit(node, positions)

    def _varying(self, wanted: Sequence[ir.Value]) -> set[ir.Value]:
        """The values that depend on those wanted, floats or codes of floats."""
        found = set(wanted)
        for node in self.nodes:
            read = [value for value in reads((node,)) if value in found]
            codes = {value.dtype for value in read if _is_codes(value)}
            for output in node.outputs if read else ():
                quantized = is_op(node, "QuantizeLinear") and _is_codes(output)
                if output.dtype in (None, *FLOATS) or quantized or output.dtype in codes:
                    found.add(output)
        return found

    def _visit(self, node: ir.Node, positions: frozenset[int]) -> None:
        given = [self._sum(output) if output in self._parts else None for output in node.outputs]
        kind = next(self._kinds[output] for output in node.outputs if output in self._parts)
        found, written = self._rule(node, given, positions, kind)
        if isinstance(found, Skip):
            for one in written:  # in no graph, they would count as readers
                one.resize_inputs(0)
            self._stop(node, found.reason)
            return
        self.graph.extend(written)
        for index in sorted(positions):
            value = node.inputs[index]
            assert value is not None
            if index in found:
                self._add(value, found[index], _kind(value, kind))
            else:
                self._stop(node, f"it has no rule for its input {index}, {value.name!r}")

    def _rule(
        self, node: ir.Node, given: list[ir.Value | None], positions: frozenset[int], kind: ir.DataType
    ) -> tuple[Gradients | Skip, list[ir.Node]]:
        rule = RULES.get(node.op_type) if is_op(node, node.op_type) else None
        if rule is None:
            return Skip("the operator has no rule"), []
        if any(given[1:]) and node.op_type not in ALL_OUTPUTS:
            return Skip("something comes back to more than its first output"), []
        for value in (*node.inputs, *node.outputs):
            if value is not None and value.shape is None and value.name:
                return Skip(f"how many axes {value.name!r} has is not known"), []
        step = Step(node, given, positions, kind, self._constants)
        return rule(step), step.written

    def _stop(self, node: ir.Node, reason: str) -> None:
        self.stops.append(Stop(node.name or "", node.op_type, reason))

    def _add(self, value: ir.Value, gradient: ir.Value, kind: ir.DataType) -> None:
        self._parts[value].append(gradient)
        self._kinds[value] = kind

    def _sum(self, value: ir.Value) -> ir.Value:
        """All that came back to a value, whose readers have all been visited."""
        parts = self._parts[value]
        if len(parts) > 1:
            node = ir.node("Sum", parts, name=fresh_name(self.graph, f"{value.name}_back_Sum"))
            node.outputs[0].name = fresh_name(self.graph, f"{value.name}_back")
            self.graph.append(node)
            parts[:] = node.outputs
        return parts[0]

    def returned(self, value: ir.Value) -> str | None:
        """The name of a new output with the gradient by a value, None where none came back."""
        if value not in self._parts:
            return None
        output, name = self._sum(value), fresh_name(self.graph, f"{value.name}_gradient")
        if output.is_graph_input() or output.is_graph_output():
            node = ir.node("Identity", [output], name=name)
            self.graph.append(node)
            output = node.outputs[0]
        output.name, output.type, output.shape = name, ir.TensorType(self._kinds[value]), value.shape
        self.graph.outputs.append(output)
        return name

    def tidy(self) -> None:
        """What was written and nobody reads goes."""
        given = set(self.nodes)
        remove_unread([node for node in reversed(self.graph) if node not in given])
        for constant in self._constants.values():
            if not constant.uses():
                self.graph.initializers.pop(str(constant.name))


def _tensor(values: Mapping[str, ir.Value], name: str) -> ir.Value:
    if name not in values:
        raise ConfigError(f"the graph has no tensor {name!r}{nearest(name, values)}")
    if values[name].dtype not in FLOATS:
        raise ConfigError(
            f"{name!r} is of {values[name].dtype}, and only floating-point numbers have gradients; "
            "name the tensor that it is made of"
        )
    return values[name]


def _is_codes(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.name in RANGES


def _kind(value: ir.Value, otherwise: ir.DataType = ir.DataType.FLOAT) -> ir.DataType:
    """The type of the gradient by a value."""
    return value.dtype if value.dtype in FLOATS and value.dtype is not None else otherwise
