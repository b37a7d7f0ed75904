"""An Identity in front of the readers that want a tensor in another type: a place for a second quantizer.

    x → readers          becomes          x → the other readers
                                          x → Identity → x_converted → the readers that convert

Placement quantizes both sides, each in its type: x → Q1 → DQ1 → Q2 → DQ2 is what onnxruntime's `convert` makes of a
tensor, and onnxruntime drops the Identity when it loads the model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.graph import Graph, Node, Value
from quark_onnx.graph.edit import new_node
from quark_onnx.graph.view import is_constant


def convert(graph: Graph, wanted: Mapping[str, Collection[str]]) -> None:
    """Insert the Identities.

    Args:
        graph: prepared otherwise.
        wanted: tensor → names of the nodes that convert it; none stand for all of them.

    Raises:
        ConfigError: there is no such tensor, it is a constant, or a node does not read it.
    """
    values = {value.name or "": value for value in (*graph.inputs, *graph.initializers.values())}
    values |= {value.name or "": value for node in graph for value in node.outputs}
    for tensor, names in wanted.items():
        where = f"TensorQuantOverrides[{tensor!r}]"
        if tensor not in values:
            raise ConfigError(f"{where}: the prepared model has no such tensor{nearest(tensor, values)}")
        if is_constant(values[tensor]):
            raise ConfigError(f"{where}: 'convert' is for activations, and this is a constant; remove it")
        _insert(graph, values[tensor], _readers(graph, values[tensor], names, where))


def _readers(graph: Graph, value: Value, names: Collection[str], where: str) -> list[Node]:
    """The nodes of the graph that convert; bodies of control flow stay float and read what they read."""
    readers = {node.name or "": node for node in value.consumers() if node.graph is graph}
    if not readers:
        raise ConfigError(f"{where}: no node reads it; remove 'convert'")
    for name in names:
        if name not in readers:
            raise ConfigError(f"{where}: recv_nodes: {name!r} does not read it{nearest(name, readers)}")
    return [node for name, node in readers.items() if not names or name in names]


def _insert(graph: Graph, value: Value, readers: list[Node]) -> None:
    name = value.name or ""
    node = new_node(graph, "Identity", [value], f"{name}_convert", f"{name}_converted")
    node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
    for reader in readers:
        for index, given in enumerate(reader.inputs):
            if given is value:
                reader.replace_input_with(index, node.outputs[0])
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], node)
    else:
        graph.insert_after(producer, node)
