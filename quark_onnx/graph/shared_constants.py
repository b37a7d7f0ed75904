"""Constants that bodies of control flow have in common, with each other or with the graph around them, stored once."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import onnx_ir as ir

from quark_onnx.graph.edit import claim_name, forget_names
from quark_onnx.graph.view import is_constant

SMALL = 64
"""Bytes up to which a constant costs little more than its name."""

Kind = tuple[ir.DataType, tuple[int, ...]]


def share_constants(model: ir.Model) -> None:
    """A constant that several bodies hold, or that the main graph has as well, moves to the main graph."""
    main = model.graph
    inner = [value for graph in main.subgraphs() for value in graph.initializers.values() if _counts(value)]
    kinds = {_kind(value) for value in inner}
    outer = [value for value in main.initializers.values() if _counts(value) and _kind(value) in kinds]
    held = Counter(map(_kind, (*inner, *outer)))
    first: dict[tuple[Kind, bytes], ir.Value] = {}
    forget_names(main)
    for value in (*outer, *inner):
        if held[_kind(value)] < 2:
            continue
        key = _kind(value), hashlib.sha256(_tensor(value).tobytes()).digest()
        known = first.setdefault(key, value)
        if known is value or value.graph is main:
            continue
        if known.graph is not main:
            _move(known, main)
        assert isinstance(value.graph, ir.Graph)
        value.replace_all_uses_with(known)
        value.graph.initializers.pop(value.name or "")


def _counts(value: ir.Value) -> bool:
    """Whether it is worth the look, and free to go: what a body returns has to be its own."""
    tensor = value.const_value
    numbers = tensor is not None and tensor.dtype != ir.DataType.STRING
    return is_constant(value) and numbers and _tensor(value).nbytes > SMALL and not value.is_graph_output()


def _kind(value: ir.Value) -> Kind:
    tensor = _tensor(value)
    return tensor.dtype, tuple(tensor.shape.numpy())


def _tensor(value: ir.Value) -> Any:
    return value.const_value


def _move(value: ir.Value, main: ir.Graph) -> None:
    assert isinstance(value.graph, ir.Graph)
    value.graph.initializers.pop(value.name or "")
    value.name = claim_name(main, value.name or "")
    main.register_initializer(value)
