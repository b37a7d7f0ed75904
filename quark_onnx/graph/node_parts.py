"""What nodes were in the user's model: parts of one node that is named, or of another operator type."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

_PART_OF = "quark_onnx.part_of"  # node.meta: name of the node of the user's model
_WAS = "quark_onnx.was"  # node.meta: operator type in the user's model


def note_part(node: ir.Node, whole: ir.Node) -> None:
    """Remember that a node is a part of what `whole` was."""
    node.meta[_PART_OF] = whole.name


def with_parts(graph: ir.Graph, names: Collection[str]) -> set[str]:
    """The names, and those of the parts of what they name."""
    return {*names, *(node.name or "" for node in graph if node.meta.get(_PART_OF) in names)}


def note_type(node: ir.Node) -> None:
    """Remember the operator type of a node that is about to become another one."""
    node.meta.setdefault(_WAS, node.op_type)


def types_of(node: ir.Node) -> set[str]:
    """The operator type of a node, and that which it had in the user's model."""
    return {node.op_type, node.meta.get(_WAS, node.op_type)}
