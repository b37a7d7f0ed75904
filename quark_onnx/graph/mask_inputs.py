"""Which inputs of a model say what is padding: those that masks are made of, by what they hide.

    kept(a)  =  a ≠ 0         attention_mask: 1 for a token, 0 for padding
    kept(a)  =  a = 0         key_padding_mask: true for padding
    kept(a)  =  a > −50       an additive mask: 0 for a token, −∞ for padding

The graph is computed for an input that is 0, or 1, everywhere, as it looks at a place that nothing else hides: what
else there is of masks is 0 there, and a condition that is false whatever the rest of it says is false.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from functools import partial, reduce
from typing import Any, Literal, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quark_onnx.core.operators import DECIDES, PASSES_MASKS
from quark_onnx.graph.attention_masks import HIDES, Masks, masks_of, passing
from quark_onnx.graph.view import constant, is_op, rank

Number = float | None
"""What a value is at such a place; None: unknown."""

_OF_TWO: Mapping[str, Callable[[float, float], float]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Max": max,
    "Min": min,
    "And": lambda a, b: float(a != 0 and b != 0),
    "Or": lambda a, b: float(a != 0 or b != 0),
    "Xor": lambda a, b: float((a != 0) != (b != 0)),
    "Equal": lambda a, b: float(a == b),
    "Greater": lambda a, b: float(a > b),
    "GreaterOrEqual": lambda a, b: float(a >= b),
    "Less": lambda a, b: float(a < b),
    "LessOrEqual": lambda a, b: float(a <= b),
}
_OF_ONE: Mapping[str, Callable[[float], float]] = {
    "Neg": operator.neg,
    "Abs": abs,
    "Not": lambda a: float(a == 0),
    "Sign": lambda a: float(np.sign(a)),
}
_DECIDED = {"And": 0.0, "Mul": 0.0, "Or": 1.0}
"""Operator → the number that decides its result, whatever the other one is."""


class MaskInput(NamedTuple):
    """An input of shape (batch, positions), and what it holds where there is padding."""

    name: str
    padding: Literal["zero", "nonzero", "low"]

    def kept(self, array: NDArray[Any]) -> NDArray[np.bool_]:
        """Which positions count, of an array for this input: true for a token, false for padding."""
        if self.padding == "low":
            return np.asarray(array > -HIDES, bool)
        return np.asarray((array == 0) == (self.padding == "nonzero"), bool)


def mask_inputs(model: ir.Model) -> tuple[MaskInput, ...]:
    """The padding masks of a prepared model, whose constants are initializers, in the order of its inputs."""
    masks, found = masks_of(model.graph), []
    for value in model.graph.inputs:
        if _has_positions(value, model.graph) and not _is_index(value):
            padding = _padding(model.graph, masks, value)
            found += [MaskInput(value.name or "", padding)] if padding is not None else []
    return tuple(found)


def _has_positions(value: ir.Value, graph: ir.Graph) -> bool:
    """Whether the shape may be (batch, positions): that of a mask of queries and keys is (positions, positions)."""
    if value.shape is None or rank(value) != 2:
        return False
    batch, positions = (None if str(dim) == "None" else str(dim) for dim in value.shape)
    others = [other.shape for other in graph.inputs if other is not value and other.shape and rank(other)]
    known = [str(shape[0]) for shape in others if str(shape[0]) != "None"]
    return batch is None or (batch != positions and (batch in known or not known))


def _is_index(value: ir.Value) -> bool:
    """Whether a table is read at these numbers, as at those of tokens, whose 0 may be padding or not."""
    for use in value.uses():
        if is_op(use.node, "Gather", "GatherND") and use.idx == 1:
            return True
        if is_op(use.node, *PASSES_MASKS) and passing(use.node) == [value] and _is_index(use.node.outputs[0]):
            return True
    return False


def _padding(graph: ir.Graph, masks: Masks, value: ir.Value) -> Literal["zero", "nonzero", "low"] | None:
    if value not in masks.hidden and value not in masks.deciding:
        return None
    zero, one = (_hides(graph, masks, value, number) for number in (0.0, 1.0))
    if zero == one:  # of what is added to scores neither hides
        return "low" if value in masks.hidden else None
    return "zero" if zero else "nonzero"


def _hides(graph: ir.Graph, masks: Masks, source: ir.Value, number: float) -> bool:
    """Whether anything is hidden where the input holds this number."""
    known: dict[ir.Value, Number] = {source: number}
    of = partial(_number, known=known, masks=masks)
    for node in graph:
        if is_op(node, *PASSES_MASKS, *DECIDES) and not known.keys().isdisjoint(node.inputs):
            known.update(dict.fromkeys(node.outputs, _result(node, of, known)))
    if any(known.get(value) == 0 for value in masks.shutting):
        return True
    numbers = [known[value] for value in masks.hidden if value in known]
    return any(each is not None and abs(each) >= HIDES for each in numbers)


def _number(value: ir.Value | None, known: Mapping[ir.Value, Number], masks: Masks) -> Number:
    """What a value is; of one that does not depend on the input, where nothing else is hidden."""
    if value is None or value in known:
        return None if value is None else known[value]
    array = constant(value)
    if array is None or array.dtype.kind not in "fiub" or not array.size:
        return 0.0 if _is_mask(value, masks) else None
    least, most = float(array.min()), float(array.max())
    if least == most:
        return least
    return 0.0 if least <= -HIDES and most == 0 else None


def _is_mask(value: ir.Value, masks: Masks) -> bool:
    """Whether it is one, or part of one: a condition may ask where a causal mask is 0."""
    while value not in masks.hidden:
        node = value.producer()
        if node is None or not is_op(node, *PASSES_MASKS) or len(passing(node)) != 1:
            return False
        value = passing(node)[0]
    return True


def _result(node: ir.Node, of: Callable[[ir.Value | None], Number], known: Collection[ir.Value]) -> Number:
    """What a node makes of its inputs, some of which are `known` to depend on the input of the model."""
    numbers = [of(value) for value in node.inputs]
    if is_op(node, "Where"):
        return _chosen(node, numbers, known)
    if is_op(node, *_OF_TWO):
        if (decided := _DECIDED.get(node.op_type)) in numbers and decided is not None:
            return decided
        told = [number for number in numbers if number is not None]
        return reduce(_OF_TWO[node.op_type], told) if len(told) == len(numbers) else None
    if is_op(node, *_OF_ONE):
        return None if numbers[0] is None else _OF_ONE[node.op_type](numbers[0])
    moved = [of(value) for value in passing(node) if value in known] if is_op(node, *PASSES_MASKS) else [None]
    if moved and moved[0] is not None and node.outputs[0].dtype == ir.DataType.BOOL:
        return float(moved[0] != 0)
    return moved[0] if moved else None


def _chosen(node: ir.Node, numbers: list[Number], known: Collection[ir.Value]) -> Number:
    """The branch of a Where; where the condition is unknown, the one that nothing else hides."""
    condition, yes, no = numbers
    if condition is not None:
        return yes if condition else no
    shown = [
        number
        for number, value in zip((yes, no), node.inputs[1:], strict=True)
        if value in known or number is None or abs(number) < HIDES
    ]
    return shown[0] if len(set(shown)) == 1 else None
