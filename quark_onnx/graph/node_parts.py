"""Nodes that are parts of what was one node in the user's model: who names that one means all of them."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

_PART_OF = "quark_onnx.part_of"  # node.meta: name of the node of the user's model


def note_part(node: ir.Node, whole: ir.Node) -> None:
    """Remember that a node is a part of what `whole` was."""
    node.meta[_PART_OF] = whole.name


def with_parts(graph: ir.Graph, names: Collection[str]) -> set[str]:
    """The names, and those of the parts of what they name."""
    return {*names, *(node.name or "" for node in graph if node.meta.get(_PART_OF) in names)}
