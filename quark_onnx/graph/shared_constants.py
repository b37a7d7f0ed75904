"""Constants that are stored twice: copies that nobody turned out to need, and what bodies have in common."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quark_onnx.core.operators import LAYERS
from quark_onnx.graph.edit import claim, forget_names, new_node
from quark_onnx.graph.view import constant_tensor, input_at, is_constant, is_op

SMALL = 64
"""Bytes up to which a constant costs little more than its name."""

_COPIED = "quark_onnx.copied"  # value.meta: name of the initializer that it is a copy of

Kind = tuple[ir.DataType, tuple[int, ...]]


def note_copy(copied: ir.Value, value: ir.Value) -> None:
    """Remember that an initializer is a copy of another one, which may turn out to be needless."""
    copied.meta[_COPIED] = value.name


def reunite(graph: ir.Graph) -> None:
    """Copies that still hold the numbers of what they were copied from go, where that one is still there."""
    for value in [value for value in graph.initializers.values() if _COPIED in value.meta]:
        origin = graph.initializers.get(value.meta[_COPIED])
        same = origin is not None and np.array_equal(_tensor(origin).numpy(), _tensor(value).numpy())
        if origin is not None and same and not value.is_graph_output():
            value.replace_all_uses_with(origin)
            graph.initializers.pop(value.name or "")


def turn_tables(graph: ir.Graph) -> None:
    """Integers that a Gather looks up are stored once: who multiplies with them reads them, or a Transpose of them,
    which onnxruntime computes while it loads the model.
    """
    tables = dict.fromkeys(input_at(node, 0) for node in graph if is_op(node, "Gather"))
    for table in tables:
        if table is None or not is_constant(table) or _tensor(table).dtype != ir.DataType.INT8 or not _is_matrix(table):
            continue
        rows = _tensor(table).numpy()
        for other in [value for value in graph.initializers.values() if value is not table and _is_weight(value)]:
            turned = as_rows(_tensor(other).numpy(), rows)
            if turned:
                node = new_node(graph, "Transpose", [table], f"{other.name}_Transpose", f"{other.name}_turned")
                node.attributes.add(ir.AttrInt64s("perm", [1, 0]))
                graph.insert_before(graph[0], node)
                _replace(other, node.outputs[0])
            elif turned is not None:
                _replace(other, table)


def as_rows(numbers: NDArray[Any], rows: NDArray[Any]) -> bool | None:
    """Whether a matrix is the transpose of the other; False: it is the other itself; None: neither."""
    if numbers.ndim == rows.ndim == 2:
        for turned in (True, False):
            if np.array_equal(numbers.T if turned else numbers, rows):
                return turned
    return None


def _is_matrix(value: ir.Value) -> bool:
    return len(_tensor(value).shape) == 2


def _is_weight(value: ir.Value) -> bool:
    """Whether it is a matrix of integers that nothing but a DequantizeLinear reads."""
    readers = list(value.consumers())
    codes = is_constant(value) and _tensor(value).dtype == ir.DataType.INT8 and _is_matrix(value)
    return codes and bool(readers) and all(is_op(node, "DequantizeLinear") for node in readers)


def _replace(value: ir.Value, other: ir.Value) -> None:
    assert isinstance(value.graph, ir.Graph)
    value.replace_all_uses_with(other)
    value.graph.initializers.pop(value.name or "")


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
    numbers = tensor is not None and tensor.dtype != ir.DataType.STRING and tensor.nbytes > SMALL
    return is_constant(value) and numbers and not value.is_graph_output() and not _beside_floats(value)


def _beside_floats(value: ir.Value) -> bool:
    """Whether it may be the weight of a MatMulNBits, which onnxruntime 1.32 looks for in the graph of the node only.

    It makes one of a layer that multiplies anything but 8-bit integers with integer weights.
    """
    layers = (use.node for dq in value.consumers() if is_op(dq, "DequantizeLinear") for use in dq.outputs[0].uses())
    return any(is_op(node, *LAYERS) and not _in_8_bits(input_at(node, 0)) for node in layers)


def _in_8_bits(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    if node is None or not is_op(node, "DequantizeLinear"):
        return False
    codes, zero = input_at(node, 0), constant_tensor(input_at(node, 2))
    if codes is not None and is_op(codes.producer(), "DynamicQuantizeLinear"):
        return True
    return zero is None or zero.dtype in (ir.DataType.UINT8, ir.DataType.INT8)


def _kind(value: ir.Value) -> Kind:
    tensor = _tensor(value)
    return tensor.dtype, tuple(tensor.shape.numpy())


def _tensor(value: ir.Value) -> Any:
    return value.const_value


def _move(value: ir.Value, main: ir.Graph) -> None:
    assert isinstance(value.graph, ir.Graph)
    value.graph.initializers.pop(value.name or "")
    claim(main, value)
    main.register_initializer(value)
