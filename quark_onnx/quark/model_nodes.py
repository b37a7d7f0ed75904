"""Nodes of a model that are not told by their names: those of a type, and what lies between others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.operators import LAYERS
from quark_onnx.graph import Graph, ModelProto, io
from quark_onnx.graph.opset import operator_types
from quark_onnx.graph.passes import name_nodes
from quark_onnx.graph.view import is_op
from quark_onnx.stages.place.excluded_nodes import between


class ModelNodes:
    """The nodes of a model; it is read when the first of them is asked for."""

    def __init__(self, model_input: str | Path | ModelProto) -> None:
        self._source = model_input

    @cached_property
    def _graph(self) -> Graph:
        """Nodes without a name have the one that preparing gives them."""
        model = io.load(self._source)
        name_nodes(model)
        return model.graph

    def of_types(self, op_types: Sequence[str]) -> list[str]:
        """Names of the nodes of these types; there need not be any of a type that ONNX has.

        Raises:
            ConfigError: nobody knows the type.
        """
        nodes = list(self._graph.all_nodes())
        known = operator_types() | {node.op_type for node in nodes}
        for op_type in op_types:
            if op_type not in known:
                raise ConfigError(f"layer_type_config: no operator {op_type!r}{nearest(op_type, known)}")
        return [node.name or "" for node in nodes if node.op_type in op_types]

    def layers_between(self, starts: Sequence[str], ends: Sequence[str]) -> list[str]:
        """Names of the layers on a path from a start to an end, both included.

        Raises:
            ConfigError: there is no such node, or no layer between them.
        """
        inside = between(self._graph, starts, ends, "specific_layer_config")
        found = [node.name or "" for node in self._graph if node.name in inside and is_op(node, *LAYERS)]
        if not found:
            raise ConfigError(f"specific_layer_config: no layer lies between {list(starts)} and {list(ends)}")
        return found
