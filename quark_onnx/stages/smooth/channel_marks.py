"""Which channel of an activation each element of an earlier value becomes: marks, carried back through operators.

Marks are an array of channel numbers that broadcasts to the value: axes along which they do not change have size 1.
−1 marks what becomes nothing of the activation, e.g. the other parts of a Split. Elements that become several channels
tie these to each other (heads that several queries share).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node, Value
from quark_onnx.graph.view import constant, input_at, is_op

Marks = NDArray[np.int32]
Shapes = Mapping[str, tuple[int, ...]]

OTHERS = -1
"""The mark of what is not part of the activation."""


def narrowed(marks: Marks) -> Marks:
    """The same with every axis of size 1 along which nothing changes."""
    for axis in range(marks.ndim):
        first = np.take(marks, [0], axis)
        marks = first if (marks == first).all() else marks
    return marks


def reshaped(node: Node, marks: Marks, shapes: Shapes) -> Marks | Skip:
    """Back through an operator that only gives axes another shape."""
    before, after = _shape(node.inputs[0], shapes), _shape(node.outputs[0], shapes)
    if before is None or after is None or marks.ndim != len(after) or not np.prod(before):
        return Skip(f"the shapes around {node.op_type} {node.name!r} are not known")
    return narrowed(np.broadcast_to(marks, after).reshape(before))


def transposed(node: Node, marks: Marks, shapes: Shapes) -> Marks | Skip:
    """Back through a Transpose."""
    perm = node.attributes.get_ints("perm", tuple(range(marks.ndim))[::-1])
    return marks.transpose(np.argsort(perm)) if len(perm) == marks.ndim else Skip("its axes are not known")


def expanded(node: Node, marks: Marks, shapes: Shapes, tie: Callable[[Marks], None]) -> Marks | Skip:
    """Back through an Expand, which repeats what has size 1."""
    before = _shape(node.inputs[0], shapes)
    return Skip("its shape is not known") if before is None else shared(marks, before, tie)


def shared(marks: Marks, dims: tuple[int, ...], tie: Callable[[Marks], None]) -> Marks | Skip:
    """The marks of an operand of these dimensions, which is broadcast to what the marks are of."""
    lost = marks.ndim - len(dims)
    if lost < 0:
        return Skip("it is broadcast to more axes")
    for axis in range(marks.ndim):
        size = dims[axis - lost] if axis >= lost else 1
        if size == 1 and marks.shape[axis] > 1:
            tie(np.moveaxis(marks, axis, 0).reshape(marks.shape[axis], -1))
            marks = np.take(marks, [0], axis)
        elif marks.shape[axis] not in (1, size):
            return Skip("its axes have other sizes")
    return marks.reshape(marks.shape[lost:])


def picked(node: Node, value: Value, marks: Marks, shapes: Shapes) -> Marks | Skip:
    """Back through a Split, or a Gather of one constant index: the marks stand at the part that `value` is."""
    before = _shape(node.inputs[0], shapes)
    if before is None:
        return Skip("its shape is not known")
    axis = node.attributes.get_int("axis", 0) % len(before)
    if is_op(node, "Split"):
        sizes = [(_shape(output, shapes) or (0,) * len(before))[axis] for output in node.outputs]
        at = list(node.outputs).index(value)
        start, size = sum(sizes[:at]), sizes[at]
        part = marks
    else:
        index = index_of(node)
        if index is None:
            return Skip("it gathers more than one index")
        start, size = index[1] % before[axis], 1
        part = np.expand_dims(marks, axis)
    whole = list(part.shape)
    whole[axis] = before[axis]
    found = np.full(whole, OTHERS, np.int32)
    place: list[Any] = [slice(None)] * len(whole)
    place[axis] = slice(start, start + size)
    found[tuple(place)] = part
    return found


def index_of(node: Node) -> tuple[int, int] | None:
    """Axis and index of a Gather of one constant index; None: it is something else."""
    array = constant(input_at(node, 1)) if is_op(node, "Gather") else None
    return None if array is None or array.ndim else (node.attributes.get_int("axis", 0), int(array))


def _shape(value: Value | None, shapes: Shapes) -> tuple[int, ...] | None:
    return None if value is None else shapes.get(value.name or "")
