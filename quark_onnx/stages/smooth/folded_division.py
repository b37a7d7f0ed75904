"""Where a division by a factor per channel goes: into the constants of the nodes that make an activation.

    normalization · γ + β             γ / s, β / s
    x W + b, columns                  W / s, b / s, where each column has a scale of its own, which the division joins
    p V, of an attention              V / s: s belongs to columns of V, the same for all rows
    f(g) · u, of a gate               u / s
    v + c, v · c, Relu(v)             c and v, c, v

through operators that only move values, as long as nobody else reads what is on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.operators import SHAPE_ALONE
from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node, Value
from quark_onnx.graph.view import input_at, is_constant, is_op, numpy_dtype, shape
from quark_onnx.stages.smooth.channel_marks import (
    OTHERS,
    Marks,
    Shapes,
    expanded,
    index_of,
    narrowed,
    picked,
    reshaped,
    shared,
    transposed,
)
from quark_onnx.stages.smooth.product_sites import Site
from quark_onnx.stages.smooth.product_sites import transposed as stored_across

RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
HOMOGENEOUS = ("Relu", "LeakyRelu", "Identity")
"""Operators that let a positive factor through."""

NORMS = ("LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization")
NORM_DOMAINS = ("", "ai.onnx", "com.microsoft")


@dataclass
class Fold:
    """What takes a division in.

    into     the node, as text
    divided  initializer → the channel by whose factor each of its elements is divided, an array that broadcasts to it
    ties     rows of channels that must have the same factor
    """

    into: str = ""
    divided: dict[str, Marks] = field(default_factory=dict)
    ties: list[NDArray[Any]] = field(default_factory=list)

    def alike(self, channels: int) -> NDArray[np.int64]:
        """(channels,) a label for each channel: those that are tied have the same."""
        labels = np.arange(channels)
        for rows in self.ties:
            for others in rows[1:]:
                for one, other in zip(labels[rows[0]], labels[others], strict=True):
                    labels[labels == other] = one
        return labels


def fold(site: Site, shapes: Shapes, free: Callable[[str], bool]) -> Fold | Skip:
    """What may take the division of a site in.

    Args:
        shapes: of all values, as in a run of the model.
        free: whether the columns of a weight may be scaled at no cost.
    """
    if not site.alone:
        who = f"{site.others[0].op_type} {site.others[0].name!r} reads" if site.others else "the model returns"
        return Skip(f"{who} it as it is")
    dims = shapes.get(site.name)
    if dims is None or dims[-1] != site.channels:
        return Skip("its shape is not known")
    marks = np.arange(site.channels, dtype=np.int32).reshape(*[1] * (len(dims) - 1), -1)
    walk = _Walk(shapes, free)
    reason = walk.back(site.value, marks)
    return walk.found if reason is None else reason


class _Walk:
    """Back from an activation; `found` is complete when `back` returns None."""

    def __init__(self, shapes: Shapes, free: Callable[[str], bool]) -> None:
        self.shapes, self.free, self.found = shapes, free, Fold()

    def back(self, value: Value, marks: Marks) -> Skip | None:
        """Divide what the marks tell of a value, whose readers all want that."""
        node = value.producer()
        if node is None:
            return Skip("the model is given it")
        if node.op_type in NORMS and node.domain in NORM_DOMAINS:
            return self._norm(node, marks)
        way = next((way for op_types, way in self._ways if is_op(node, *op_types)), None)
        return Skip(f"{_title(node)} does not let a factor through") if way is None else way(node, value, marks)

    @property
    def _ways(self) -> tuple[tuple[tuple[str, ...], Callable[[Node, Value, Marks], Skip | None]], ...]:
        return (
            (("MatMul",), self._product),
            (("Gemm",), self._layer),
            (("Mul",), self._scaled),
            (("Add",), self._moved),
            (HOMOGENEOUS, lambda node, value, marks: self._on(node.inputs[0], marks)),
            (RESHAPES, lambda node, value, marks: self._on(node.inputs[0], reshaped(node, marks, self.shapes))),
            (("Transpose",), lambda node, value, marks: self._on(node.inputs[0], transposed(node, marks, self.shapes))),
            (("Expand",), self._expanded),
            (("Split", "Gather"), self._picked),
        )

    def _on(self, value: Value | None, marks: Marks | Skip, apart: Callable[[Node], bool] | None = None) -> Skip | None:
        """On to what a node reads, unless somebody reads the same.

        apart: whether a reader is that node, or reads something else of the value; None: it must be the only one.
        """
        if isinstance(marks, Skip) or value is None:
            return marks if isinstance(marks, Skip) else Skip("an input is missing")
        readers = [use.node for use in value.uses() if not is_op(use.node, *SHAPE_ALONE)]
        alone = len(readers) == 1 if apart is None else all(map(apart, readers))
        if not alone or value.is_graph_output():
            return Skip(f"{value.name!r} is read elsewhere")
        return self.back(value, marks)

    def _expanded(self, node: Node, value: Value, marks: Marks) -> Skip | None:
        return self._on(node.inputs[0], expanded(node, marks, self.shapes, self.found.ties.append))

    def _picked(self, node: Node, value: Value, marks: Marks) -> Skip | None:
        """A part of a Split, or what a Gather takes; other Gathers may take other parts."""
        found, mine = picked(node, value, marks, self.shapes), index_of(node)

        def apart(other: Node) -> bool:
            theirs = index_of(other)
            return other is node or (theirs is not None and mine is not None and _apart(theirs, mine))

        return self._on(node.inputs[0], found, None if mine is None else apart)

    def _norm(self, node: Node, marks: Marks) -> Skip | None:
        parameters = [value for value in (input_at(node, 1), input_at(node, 2)) if value is not None]
        return self._divide(node, parameters, marks)

    def _scaled(self, node: Node, value: Value, marks: Marks) -> Skip | None:
        """A Mul: its constant, or one of its inputs."""
        constants = [one for one in node.inputs if is_constant(one)]
        if constants and self._divide(node, constants, marks) is None:
            return None
        reason: Skip | None = Skip(f"nothing in front of {_title(node)} takes it in")
        for one in node.inputs:
            dims = None if one is None or is_constant(one) else self.shapes.get(one.name or "")
            if dims is None or len(dims) > marks.ndim or any(m not in (1, d) for m, d in _aligned(marks, dims)):
                continue
            before = Fold(self.found.into, dict(self.found.divided), list(self.found.ties))
            reason = self._on(one, marks.reshape(marks.shape[marks.ndim - len(dims) :]))
            if reason is None:
                return None
            self.found = before
        return reason

    def _moved(self, node: Node, value: Value, marks: Marks) -> Skip | None:
        """An Add of a constant, which is divided as well as what it is added to."""
        constants = [one for one in node.inputs if is_constant(one)]
        others = [one for one in node.inputs if not is_constant(one)]
        if len(constants) != 1 or len(others) != 1:
            return Skip(f"{_title(node)} adds two activations")
        reason = self._divide(node, constants, marks)
        return self._on(others[0], marks) if reason is None else reason

    def _product(self, node: Node, value: Value, marks: Marks) -> Skip | None:
        right = node.inputs[1]
        if is_constant(right):
            return self._layer(node, value, marks)
        dims = None if right is None else self.shapes.get(right.name or "")
        if dims is None or marks.ndim < 2 or marks.shape[-2] != 1:
            return Skip(f"factors differ along the rows of {_title(node)}")
        return self._on(right, shared(marks, (*dims[:-2], 1, dims[-1]), self.found.ties.append))

    def _layer(self, node: Node, value: Value, marks: Marks) -> Skip | None:
        """Columns of a weight, and its bias."""
        weight, bias = node.inputs[1], input_at(node, 2)
        if not is_constant(weight) or weight is None:
            return Skip(f"the weight of {_title(node)} is computed at run time")
        if not self.free(weight.name or ""):
            return Skip(f"the columns of {weight.name!r} share a scale")
        if marks.size != marks.shape[-1]:
            return Skip(f"factors differ along the rows of {_title(node)}")
        row = marks.reshape(1, -1)
        reason = self._divide(node, [weight], row.T if stored_across(node) else row)
        return self._divide(node, [bias], row) if reason is None and bias is not None else reason

    def _divide(self, node: Node, constants: list[Value | None] | list[Value], marks: Marks) -> Skip | None:
        """Constants of a node, each with a number for every mark."""
        found = dict(self.found.divided)
        for value in constants:
            own = value is not None and is_constant(value) and len(value.uses()) == 1 and not value.is_graph_output()
            if value is None or not own or numpy_dtype(value) not in ("float32", "float64"):
                return Skip(f"a constant of {_title(node)} is shared, or not of floats")
            fitted = _fitted(narrowed(marks), shape(value) or ())
            if fitted is None or value.name in found:
                return Skip(f"{value.name!r} has no number of its own for each channel")
            found[value.name or ""] = fitted
        self.found.divided = found
        self.found.into = _title(node)
        return None


def _fitted(marks: Marks, dims: tuple[int | None, ...]) -> Marks | None:
    """The marks with as many axes as a constant has; None: it has not one number for each."""
    lost = marks.ndim - len(dims)
    if lost > 0:
        if any(size != 1 for size in marks.shape[:lost]):
            return None
        marks = marks.reshape(marks.shape[lost:])
    else:
        marks = marks.reshape(*[1] * -lost, *marks.shape)
    return marks if all(size in (1, dim) for size, dim in zip(marks.shape, dims, strict=True)) else None


def _aligned(marks: Marks, dims: tuple[int, ...]) -> list[tuple[int, int]]:
    """Sizes of marks and of an operand, axis by axis from the last; an axis that the operand lacks has size 1."""
    return list(zip(marks.shape, (1,) * (marks.ndim - len(dims)) + dims, strict=True))


def _apart(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two Gathers take different parts along one axis."""
    return one[0] == other[0] and one[1] != other[1]


def factor_of(marks: Marks, s: NDArray[Any]) -> NDArray[Any]:
    """What an initializer is multiplied by: 1 / s of each element's channel, 1 where it has none."""
    return np.where(marks == OTHERS, np.float32(1), (1 / s)[np.maximum(marks, 0)]).astype(np.float32)


def _title(node: Node) -> str:
    return f"{node.op_type} {node.name!r}"
