"""The graph as AIMET sees it: operators with parameters by type, patterns that run as one operator taken as one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from quark_onnx.graph import Graph, Node, Value
from quark_onnx.graph.view import input_at, is_constant, is_op, rank
from quark_onnx.stages.simulated_placement.aimet_operators import CHANNEL_AXIS, PARAMS, TRANSPOSED_AXIS


@dataclass(eq=False)
class Unit:
    """One operator, or several nodes that are one to the target.

    type        operator type that the configuration speaks of
    title       the type with its domain, if that is not the standard one
    params      parameters by type; they are among the inputs, or behind a Transpose or Identity of one
    transposed  the weight is stored as [out, in]
    """

    type: str
    title: str
    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    params: Mapping[str, Value] = field(default_factory=dict)
    transposed: bool = False

    def channel_axis(self, param: Value) -> int | None:
        """The axis of a parameter along which each output channel has its own scale; None: there is none."""
        axes = rank(param) or 0
        if axes == 1:
            return 0
        axis = (TRANSPOSED_AXIS if self.transposed else CHANNEL_AXIS).get(self.type)
        axis = CHANNEL_AXIS.get(self.type) if axis is None else axis
        return None if axis is None or axes < 2 else axis % axes


class Circuit:
    """All units of the main graph in order, who computes a value and who reads it."""

    def __init__(self, graph: Graph, fused: Iterable[Unit]) -> None:
        last = {unit.nodes[-1]: unit for unit in fused}
        inside = {node for unit in last.values() for node in unit.nodes}
        self.graph = graph
        self.units = [last[node] if node in last else unit_of(node) for node in graph if _stands(node, last, inside)]
        self.makers = {value: unit for unit in self.units for value in unit.outputs}
        self.readers: dict[Value, list[Unit]] = defaultdict(list)
        bodies = [unit_of(node) for node in graph.all_nodes() if node.graph is not graph]
        for unit in (*self.units, *bodies):
            for value in unit.inputs:
                self.readers[value].append(unit)

    def behind(self, unit: Unit) -> list[Unit]:
        """Who reads an output of a unit; twice, if it does so twice."""
        return [reader for value in unit.outputs for reader in self.readers[value]]


def _stands(node: Node, last: Mapping[Node, Unit], inside: set[Node]) -> bool:
    return node in last or node not in inside


def unit_of(node: Node) -> Unit:
    """A node on its own."""
    params: dict[str, Value] = {}
    for name, index in PARAMS.get(node.op_type, {}).items():
        value = _static(input_at(node, index))
        if value is not None:
            params[name] = value
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
    if node.op_type == "MatMul" and not params and (stored := behind_transpose(input_at(node, 1))) is not None:
        params, transposed = {"weight": stored}, True
    standard = node.domain in ("", "ai.onnx")
    title = node.op_type if standard else f"{node.domain}.{node.op_type}"
    return Unit(node.op_type, title, (node,), present(node.inputs), _named(node.outputs), params, transposed)


def present(values: Sequence[Value | None]) -> tuple[Value, ...]:
    """The inputs that are there."""
    return tuple(value for value in values if value is not None)


def _named(values: Sequence[Value]) -> tuple[Value, ...]:
    return tuple(value for value in values if value.name)


def _static(value: Value | None) -> Value | None:
    """The constant that an input reads, through any number of Identity nodes."""
    while value is not None and is_op(producer := value.producer(), "Identity") and producer is not None:
        value = producer.inputs[0]
    return value if is_constant(value) else None


def behind_transpose(value: Value | None) -> Value | None:
    """The constant that an input is the transpose of."""
    producer = None if value is None else value.producer()
    if producer is None or not is_op(producer, "Transpose") or not is_constant(producer.inputs[0]):
        return None
    return producer.inputs[0]
