"""What the rules of this folder write: nodes in front of the one that goes, which becomes the last of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from quark_onnx.graph import Node, Value
from quark_onnx.graph.edit import add_constant, graph_of, new_node
from quark_onnx.graph.node_parts import note_part
from quark_onnx.graph.view import is_float, numpy_dtype

DOMAIN = "com.microsoft"

UNKNOWN = "the type or rank of an input is unknown"


def opset(node: Node) -> int:
    """The operator set of the graph that holds the node."""
    return graph_of(node).opset_imports.get("", 1)


def put(
    root: Node,
    op_type: str,
    inputs: Sequence[Value | None],
    like: Value | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Value:
    """The output of a new node in front of `root`, of the type and shape of `like`."""
    graph = graph_of(root)
    node = new_node(graph, op_type, inputs, f"{root.name}_{op_type}", f"{root.name}_{op_type.lower()}", attributes)
    note_part(node, root)
    graph.insert_before(root, node)
    if like is not None:
        node.outputs[0].type, node.outputs[0].shape = like.type, like.shape
    return node.outputs[0]


def number(root: Node, value: float, like: Value) -> Value:
    """A constant number of the type of `like`, which is known."""
    return add_constant(graph_of(root), np.asarray(value, numpy_dtype(like)), f"{root.name}_number")


def integers(root: Node, *values: int) -> Value:
    """A constant list of axes, sizes or indices."""
    return add_constant(graph_of(root), np.array(values, np.int64), f"{root.name}_integers")


def floats(*values: Value | None) -> bool:
    """Whether all of these, as far as they are there, are known to be tensors of floating-point numbers."""
    return all(is_float(value) for value in values if value is not None)


def is_read(node: Node, *outputs: int) -> bool:
    """Whether anybody reads one of these outputs."""
    values = [node.outputs[index] for index in outputs if index < len(node.outputs)]
    return any(value.uses() or value.is_graph_output() for value in values)
