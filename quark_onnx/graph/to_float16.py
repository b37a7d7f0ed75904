"""A float32 model in float16: weights, activations, and Casts where the two meet.

Every value has a type that its producer gives it; who wants the other one reads a Cast, or, of a constant, another
copy. Which inputs and outputs are float16 is what `ports` says; the nodes to keep have none. Bodies of control flow
take and return float16, and their nodes are decided like all others.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from quark_onnx.core.errors import ModelError
from quark_onnx.core.plan import Skip
from quark_onnx.graph.edit import add_constant, forget_types, fresh_name, new_node
from quark_onnx.graph.element_types import RESULT_TYPES, element_type, infer_types, retype_attributes, rounded
from quark_onnx.graph.float16_ports import Ports, no_ports, ports
from quark_onnx.graph.io import copy
from quark_onnx.graph.passes import remove_unused
from quark_onnx.graph.view import constant, input_at, is_op

HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT


def to_float16(model: ir.Model, *, keep: Collection[str] = (), interface: Collection[str] = ()) -> ir.Model:
    """A float16 copy of a float32 model.

    Constants are rounded half to even, and finite ones stay finite. A quantizer whose scale is no float16 number stays
    float32: scales are never rounded. So does one that stands between float32 nodes only.

    Args:
        keep: names of nodes of the main graph that stay float32, bodies and all.
        interface: names of inputs and outputs that become float16; the others stay float32.

    Raises:
        ModelError: one of `interface` is no tensor.
    """
    twin = copy(model)
    infer_types(twin)
    for value in (*twin.graph.inputs, *twin.graph.outputs):
        if value.name in interface and element_type(value) is None:
            raise ModelError(
                f"{value.name!r} is a sequence of tensors, which cannot become float16 again; set "
                "convert_fp16_to_fp32=True for a float32 model"
            )
    narrower = _Narrower(twin, keep, interface)
    narrower.graph(twin.graph, kept=False)
    narrower.tidy()
    remove_unused(twin)
    forget_types(twin.graph)
    return twin


class _Narrower:
    """One pass over a graph and its bodies, in order: producers come before readers."""

    def __init__(self, model: ir.Model, keep: Collection[str], interface: Collection[str]) -> None:
        self.main = model.graph
        self.opsets = model.opset_imports
        # asked before any type changes
        self.allowed = {node: ports(node, self.opsets) for graph in model.graphs() for node in graph}
        self.keep = frozenset(keep)
        self.interface = frozenset(interface)
        self.half: set[ir.Value] = set()  # given as float16 by their producer
        self.other: dict[ir.Value, ir.Value] = {}  # value → the same in the other type
        self.floats = {value for graph in model.graphs() for value in _values(graph) if element_type(value) == FLOAT}

    def graph(self, graph: ir.Graph, *, kept: bool) -> None:
        """Inputs, nodes and outputs of one graph; `kept`: all of it stays float32."""
        nodes = tuple(graph)
        for value in graph.inputs:
            if self._outside(graph, value, kept=kept):
                self._give(value)
        for node in nodes:
            self._node(node, kept=kept)
        for i, value in enumerate(graph.outputs):
            if value in self.floats and self._outside(graph, value, kept=kept) != (value in self.half):
                graph.outputs[i] = self._output(graph, value)

    def _outside(self, graph: ir.Graph, value: ir.Value, *, kept: bool) -> bool:
        """Whether an input or output of the graph is float16."""
        wanted = value.name in self.interface if graph is self.main else not kept
        return wanted and value in self.floats

    def _node(self, node: ir.Node, *, kept: bool) -> None:
        found = no_ports(node) if kept else self._ports(node)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                self.graph(attribute.as_graph(), kept=kept or not any(found.inputs + found.outputs))
        for i, value in enumerate(node.inputs):
            if value is not None and value in self.floats and found.inputs[i] != (value in self.half):
                node.replace_input_with(i, self._converted(value))
        if any(found.outputs):
            _say_half(node)
        for value, is_half in zip(node.outputs, found.outputs, strict=True):
            if is_half:
                self._give(value)

    def _give(self, value: ir.Value) -> None:
        value.type = ir.TensorType(HALF)
        self.half.add(value)

    def _ports(self, node: ir.Node) -> Ports:
        """What the schema allows; a quantizer goes by its neighbours, too."""
        if node.graph is self.main and node.name in self.keep:
            return no_ports(node)
        found = self.allowed[node]
        if isinstance(found, Skip):
            return no_ports(node)
        if is_op(node, "QuantizeLinear") and (node.inputs[0] not in self.half or not _exact(node)):
            return no_ports(node)
        if is_op(node, "DequantizeLinear") and not (_exact(node) and self._wanted(node.outputs[0])):
            return no_ports(node)
        return found

    def _wanted(self, value: ir.Value) -> bool:
        """Whether anybody reads the value as float16."""
        if value.is_graph_output() and value.name in self.interface:
            return True
        readers = [use for use in value.uses() if not is_op(use.node, "QuantizeLinear")]  # these take what comes
        return any(self._ports(use.node).inputs[use.idx] for use in readers)

    def _converted(self, value: ir.Value) -> ir.Value:
        """The value in the type that its producer does not give: a Cast, or another constant."""
        if value not in self.other:
            array = constant(value)
            graph = _home(value)
            if array is None:
                self.other[value] = self._cast(graph, value)
            else:
                name = fresh_name(self.main, f"{value.name}_half")
                self.other[value] = add_constant(graph, rounded(array, HALF), name, "float16")
        return self.other[value]

    def _cast(self, graph: ir.Graph, value: ir.Value) -> ir.Value:
        """A new Cast behind the producer of the value, or in front of the graph."""
        kind = FLOAT if value in self.half else HALF
        hint = f"{value.name}_{'float' if kind == FLOAT else 'half'}"
        cast = new_node(self.main, "Cast", [value], f"{hint}_Cast", hint, {"to": kind.value})
        cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(kind), value.shape
        producer = value.producer()
        if producer is not None and producer.graph is graph:
            graph.insert_after(producer, cast)
        elif len(graph):
            graph.insert_before(graph[0], cast)
        else:
            graph.append(cast)
        return cast.outputs[0]

    def _output(self, graph: ir.Graph, value: ir.Value) -> ir.Value:
        """What leaves the graph in place of a value of the other type, under its name if that is public."""
        result = self._converted(value) if _home(value) is graph else self._cast(graph, value)
        if graph is self.main:
            name = value.name
            value.name = fresh_name(self.main, f"{name}_inner")
            result.name = name
        return result

    def tidy(self) -> None:
        """Constants that nobody reads as float32 any more leave their name to the float16 ones."""
        for old, new in self.other.items():
            if old.is_initializer() and not old.uses() and not old.is_graph_output():
                name = old.name or ""
                _home(old).initializers.pop(name)
                if not new.is_graph_output():
                    new.name = name


def _values(graph: ir.Graph) -> list[ir.Value]:
    made = [value for node in graph for value in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *made, *graph.outputs]


def _home(value: ir.Value) -> ir.Graph:
    """The graph that computes or holds the value."""
    producer = value.producer()
    graph = value.graph if producer is None else producer.graph
    assert isinstance(graph, ir.Graph)
    return graph


def _exact(node: ir.Node) -> bool:
    """Whether float16 holds the scale of a quantizer."""
    scale = constant(input_at(node, 1))
    return scale is not None and bool((scale.astype(np.float16).astype(scale.dtype) == scale).all())


def _say_half(node: ir.Node) -> None:
    """Attributes of a node with a float16 result that decide about its type."""
    if is_op(node, "ConstantOfShape") and "value" not in node.attributes:
        node.attributes.add(ir.AttrTensor("value", ir.Tensor(np.zeros(1, np.float32), name="value")))
    retype_attributes(node, FLOAT, HALF, RESULT_TYPES)
