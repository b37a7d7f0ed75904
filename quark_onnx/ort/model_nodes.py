"""What a model is made of: operator types, and nodes by their names, as a user's function is asked about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from quark_onnx.graph import ModelProto, io
from quark_onnx.graph.passes import name_nodes

Source: TypeAlias = "str | Path | ModelProto"


NEVER = {"Cast", "Constant", "DequantizeLinear", "QuantizeLinear"}
"""Operator types that nobody quantizes."""


def op_types(source: Source) -> set[str]:
    """Operator types of the model, but for those that nobody quantizes.

    Raises:
        ModelError: it cannot be read.
    """
    return {node.op_type for node in io.read(source).graph} - NEVER


def picked(source: Source, wanted: Callable[[ModelProto, Any], bool]) -> Iterator[str]:
    """Names of the nodes that a function of the model and a node, both as protobufs, says yes to.

    Nodes without a name have the one that preparing gives them.

    Raises:
        ModelError: the model cannot be read.
    """
    model = io.read(source)
    name_nodes(model)
    proto = io.to_proto(model)
    return (node.name for node in proto.graph.node if wanted(proto, node))
