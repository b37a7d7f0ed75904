"""Weights that a model stores as integers, or as parts of one tensor, are weights: constants.

    DequantizeLinear(q, s, z)  =  (q − z)·s          QuantizeLinear(w, s, z)  =  clip(⌊w / s⌉ + z)
    Split(w)                   =  its parts

Nothing grows by that: what no layer quantizes is stored as integers again, and parts are as large as the whole.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node
from quark_onnx.graph.packed_weights import split, unpack
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import constant, input_at, sole_reader

_CODES = ("int8", "uint8", "int16", "uint16", "int32")


class Found(NamedTuple):
    """What a quantizer makes of constants."""

    node: Node
    array: NDArray[Any]


def match(node: Node) -> Found | Skip:
    """Read only: the array that a quantizer of constants makes, or why it stays."""
    values = [None if value is None else constant(value) for value in node.inputs]
    if any(value is not None and array is None for value, array in zip(node.inputs, values, strict=True)):
        return Skip("it reads what is computed at run time")
    first, scale, zero = (*values, None)[:3]
    assert first is not None and scale is not None
    codes = zero if node.op_type == "QuantizeLinear" else first
    if scale.dtype != np.float32 or str(np.uint8 if codes is None else codes.dtype) not in _CODES:
        return Skip("its integers have fewer than 8 bits, or its scales are not float32")
    zero = np.zeros(scale.shape, np.uint8 if codes is None else codes.dtype) if zero is None else zero
    axis, block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
    s, z = (_along(parameter, first, axis, block) for parameter in (scale, zero))
    if node.op_type == "DequantizeLinear":
        return Found(node, (first.astype(np.int32) - z.astype(np.int32)).astype(np.float32) * s)
    ends = np.iinfo(zero.dtype)
    return Found(node, np.clip(np.rint(first / s) + z, ends.min, ends.max).astype(zero.dtype))


def _along(parameter: NDArray[Any], array: NDArray[Any], axis: int, block: int) -> NDArray[Any]:
    """A parameter in a shape that fits the array: one number, one along an axis, or one for each block of it."""
    if block:
        return np.repeat(parameter, block, axis).take(range(array.shape[axis]), axis)
    if parameter.size == 1:
        return parameter.reshape(())
    return parameter.reshape([-1 if i == axis % array.ndim else 1 for i in range(array.ndim)])


def apply(found: Found) -> None:
    """Edit only."""
    unpack(found.node, found.array)


class Parts(NamedTuple):
    """Where a Split cuts a constant."""

    node: Node
    ends: list[int]
    axis: int


def match_split(node: Node) -> Parts | Skip:
    """Read only: the parts of a constant."""
    whole, sizes = constant(input_at(node, 0)), constant(input_at(node, 1))
    if whole is None:
        return Skip("it splits what is computed at run time")
    if sole_reader(node.inputs[0]) is None:  # type: ignore[arg-type]
        return Skip("others read the whole as well: the parts would be stored beside it")
    axis = node.attributes.get_int("axis", 0)
    told = node.attributes.get_ints("split", None) if sizes is None else sizes.tolist()
    length = whole.shape[axis]
    each = -(-length // len(node.outputs))
    ends = np.cumsum(told if told is not None else [each] * len(node.outputs))
    return Parts(node, ends[:-1].tolist(), axis)


def apply_split(found: Parts) -> None:
    """Edit only."""
    split(*found)


RULES = (
    Rule("weights-of-integers", ("QuantizeLinear", "DequantizeLinear"), match, apply),
    Rule("split-constant", ("Split",), match_split, apply_split),
)
