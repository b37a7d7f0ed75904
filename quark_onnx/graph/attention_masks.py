"""Masks, as the graph shows them: numbers that hide scores, on their way into a Softmax.

    softmax(s + m)ᵢ  =  0    for mᵢ ≤ −50, wherever m is 0 elsewhere

Such numbers are constants: a branch of a Where, a summand, what 1 − mask is multiplied by. Or they come from outside,
in an input of the model that is added to scores. Whatever samples show, they may come, and no grid holds them beside
scores.

Two walks tell: back from each Softmax, with the sign that a value gets on its way; and forward again, with the least
and the largest constant that may have got into it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from quark_onnx.core.operators import DECIDES, PASSES_MASKS, SHAPE_ALONE, SHUTS_OUT, TAKES_MASKS
from quark_onnx.graph.view import constant, input_at, is_constant, is_float, is_op

HIDES = 50.0
"""A summand that hides a score: e⁻⁵⁰ of it is nothing. Masks between windows are −100, learned biases −10 or so."""

FACTOR = 1000.0
"""A factor that makes a mask of 0 and 1. In front of a Softmax a temperature may be 100."""


class Reach(NamedTuple):
    """The least and the largest constant that may be in a value, alone or in a sum; 0: none is."""

    low: float = 0.0
    high: float = 0.0

    def negative(self) -> Reach:
        return Reach(-self.high, -self.low)

    def or_(self, *others: Reach) -> Reach:
        return Reach(min((self.low, *(r.low for r in others))), max((self.high, *(r.high for r in others))))


Of = Callable[["ir.Value | None"], Reach]
Ways = dict[ir.Value, set[int]]
"""Value → the signs, 1 or −1, with which it goes into a Softmax."""


class Masks(NamedTuple):
    """What has to stay exact for a mask to do its work.

    hidden    masks and masked scores → the number that hides; it is positive where it is subtracted later
    deciding  what says where it hides: all that conditions and factors of masks are computed from
    shutting  masks that an attention takes as they are: whatever is 0 is hidden
    """

    hidden: Mapping[ir.Value, float]
    deciding: frozenset[ir.Value]
    shutting: frozenset[ir.Value]


def masks_of(graph: ir.Graph) -> Masks:
    """The masks of a graph, whose nodes are in the order in which they run. Those of bodies are their own."""
    ways = _ways(graph)
    reaches = {value: Reach(-math.inf, math.inf) for value in _added_inputs(graph, ways)}
    of = partial(_reach, known=reaches)
    for node in graph:
        if outputs := [value for value in node.outputs if value in ways]:
            reaches.update(dict.fromkeys(outputs, _behind(node, of)))
    worst = {value: _worst(reach, ways[value]) for value, reach in reaches.items()}
    hidden = {value: number for value, number in worst.items() if abs(number) >= HIDES}
    shutting = frozenset(value for node in graph for value in _taken(node, floats=False))
    return Masks(hidden, frozenset(_deciding(hidden, shutting)), shutting)


def _worst(reach: Reach, signs: Collection[int]) -> float:
    """What hides most in a value that goes into a Softmax with these signs."""
    return max([reach.low if sign > 0 else reach.high for sign in signs], key=abs)


def _ways(graph: ir.Graph) -> Ways:
    found: Ways = {}
    waiting = [(node.inputs[0], 1) for node in graph if _shuts_out(node)]
    waiting += [(value, 1) for node in graph for value in _taken(node, floats=True)]
    while waiting:
        value, sign = waiting.pop()
        if value is None or is_constant(value) or sign in found.setdefault(value, set()):
            continue
        found[value].add(sign)
        node = value.producer()
        if node is not None and node.graph is graph and is_op(node, *PASSES_MASKS):
            waiting += [(each, sign * turn) for each in passing(node) for turn in _turns(node, each)]
    return found


def _shuts_out(node: ir.Node) -> bool:
    """Whether nothing is left behind the node of what is hidden; an Exp is part of a Softmax where its sum is taken."""
    if is_op(node, "Exp"):
        return any(is_op(reader, "ReduceSum") for reader in node.outputs[0].consumers())
    return is_op(node, *SHUTS_OUT)


def _taken(node: ir.Node, *, floats: bool) -> list[ir.Value]:
    """The masks of a whole attention that are, or are not, floats."""
    indices = TAKES_MASKS.get(node.op_type, ()) if node.domain in ("", "ai.onnx", "com.microsoft") else ()
    found = (input_at(node, i) for i in indices)
    return [value for value in found if value is not None and is_float(value) == floats and not is_constant(value)]


def passing(node: ir.Node) -> list[ir.Value]:
    """The inputs of one of `PASSES_MASKS` by which a mask may come."""
    wanted = PASSES_MASKS[node.op_type]
    indices = range(len(node.inputs)) if wanted is None else wanted
    return [value for value in (input_at(node, i) for i in indices) if value is not None]


def _turns(node: ir.Node, value: ir.Value) -> tuple[int, ...]:
    """The signs that an input may have in the output."""
    if is_op(node, "Neg") or (is_op(node, "Sub") and value is not node.inputs[0]):
        return (-1,)
    if not is_op(node, "Mul", "Div"):
        return (1,)
    factor = _reach(_other(node, value))
    return tuple(sign for sign, end in ((1, factor.high), (-1, factor.low)) if end) or (1, -1)


def _other(node: ir.Node, value: ir.Value) -> ir.Value | None:
    return node.inputs[1] if value is node.inputs[0] else node.inputs[0]


def _reach(value: ir.Value | None, known: Mapping[ir.Value, Reach] | None = None) -> Reach:
    """That of a constant, or a known one."""
    array = constant(value)
    if array is None:
        return Reach() if value is None or known is None else known.get(value, Reach())
    if array.dtype.kind not in "fiu":  # bfloat16, or no number
        array = array.astype(np.float32) if array.dtype.kind == "V" else np.zeros(1)
    return Reach(*(float(end.reduce(array, axis=None, initial=0)) for end in (np.fmin, np.fmax)))


def _behind(node: ir.Node, of: Of) -> Reach:
    """The reach of what a node makes of its inputs."""
    if is_op(node, "ConstantOfShape"):
        fill = node.attributes.get_tensor("value")
        number = 0.0 if fill is None else float(fill.numpy().astype(np.float64).ravel()[0])
        return Reach(min(number, 0.0), max(number, 0.0))
    if not is_op(node, *PASSES_MASKS) or node.outputs[0].dtype == ir.DataType.BOOL:
        return Reach()
    values = passing(node)
    if is_op(node, "Mul", "Div"):
        return _scaled(node, values, of)
    first, *others = map(of, values)
    if is_op(node, "Neg"):
        return first.negative()
    if is_op(node, "Sub"):
        return first.or_(*(other.negative() for other in others))
    whole = first.or_(*others)
    if is_op(node, "Max"):
        return Reach(max((first.low, *(other.low for other in others))), whole.high)
    if is_op(node, "Min"):
        return Reach(whole.low, min((first.high, *(other.high for other in others))))
    return whole


def _scaled(node: ir.Node, values: list[ir.Value], of: Of) -> Reach:
    """A large constant factor makes a mask of whatever it is multiplied by; else masks keep what they hold."""
    found = []
    for value in values:
        reach = of(value)
        if not is_constant(value):
            found += [reach if turn > 0 else reach.negative() for turn in _turns(node, value)]
        elif (most := max(-reach.low, reach.high)) >= FACTOR:
            found.append(Reach(-most, most))
    return Reach().or_(*found)


def _added_inputs(graph: ir.Graph, ways: Ways) -> Iterator[ir.Value]:
    """Float inputs of the graph that are read for nothing but to be added to what is computed, on the way."""
    for node in graph:
        found = [_from_outside(value, ways) for value in _taken(node, floats=True)]
        yield from (value for value in found if value is not None)
        if is_op(node, "Add", "Sub", "Sum") and node.outputs[0] in ways:
            varying = [value for value in passing(node) if not is_constant(value)]
            found = [_from_outside(value, ways) for value in varying]
            if None in found:
                yield from (value for value in found if value is not None)


def _from_outside(value: ir.Value, ways: Ways) -> ir.Value | None:
    """The float input of the graph that the value is, moved or scaled; None where it is none, or is read otherwise."""
    while all(_is_on_the_way(reader, value, ways) or is_op(reader, *SHAPE_ALONE) for reader in value.consumers()):
        node = value.producer()
        if node is None:
            return value if is_float(value) and value.is_graph_input() else None
        varying = [each for each in passing(node) if not is_constant(each)] if is_op(node, *PASSES_MASKS) else []
        if len(varying) != 1:
            return None
        value = varying[0]
    return None


def _is_on_the_way(node: ir.Node, value: ir.Value, ways: Ways) -> bool:
    passed = is_op(node, *PASSES_MASKS) and not ways.keys().isdisjoint(node.outputs)
    return passed or value in _taken(node, floats=True)


def _deciding(hidden: Mapping[ir.Value, float], shutting: Collection[ir.Value]) -> Iterator[ir.Value]:
    """Back from the conditions and factors of masks, through operators on elements, as far as these go."""
    waiting = [*shutting, *(value for mask in hidden for value in _switches(mask, hidden))]
    seen = set[ir.Value]()
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if value in seen or is_constant(value) or (node is not None and not is_op(node, *PASSES_MASKS, *DECIDES)):
            continue
        seen.add(value)
        yield value
        if node is not None:
            waiting += passing(node) if is_op(node, *PASSES_MASKS) else [each for each in node.inputs if each]
            waiting += [each for each in node.inputs[:1] if each] if is_op(node, "Where") else []


def _switches(mask: ir.Value, hidden: Mapping[ir.Value, float]) -> list[ir.Value]:
    node = mask.producer()
    if is_op(node, "Where") and node is not None:
        return [value for value in node.inputs[:1] if value is not None]
    if is_op(node, "Mul") and node is not None:
        return [value for value in passing(node) if value not in hidden]
    return []
