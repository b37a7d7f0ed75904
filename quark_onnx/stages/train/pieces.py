"""Where a graph is cut so that its activations fit into a number of bytes: what lies on the cuts is kept, the rest is
there piece by piece.

bytes at the peak = Σ kept on cuts + the largest piece + gradients on their way
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from quark_onnx.graph import Model
from quark_onnx.graph.segments import reads
from quark_onnx.graph.view import FLOATS

ON_THEIR_WAY = 5
"""Tensors as large as the largest that are there at once besides: gradients, masks, what is padded; measured."""

SMALLER = 0.9
"""Of two bounds of a piece that are tried one after the other."""


@dataclass(frozen=True)
class Cut:
    """Names of the nodes in front of which a graph is cut, and the bytes that a step takes then."""

    anchors: tuple[str, ...]
    needs: int


def cut(model: Model, sizes: Mapping[str, int], limit: int) -> Cut:
    """The fewest bytes on cuts with which a step keeps to a limit; if none does, the cut that needs least.

    sizes: bytes of tensors that nodes make; those that are not there are small.
    """
    nodes = list(model.graph)
    made = [sum(sizes.get(value.name or "", 0) for value in node.outputs) for node in nodes]
    places = _places(model, sizes)
    before = [0, *accumulate(made)]
    weights = [before[place.position] for place in places]
    moving = ON_THEIR_WAY * max(sizes.values(), default=0)
    bound, best = float(before[-1]), Cut((), before[-1] + moving)
    while best.needs > limit:
        bound *= SMALLER
        found = _least(places, weights, bound)
        if found is None:
            return best
        needs = int(sum(place.kept for place in found) + bound + moving)
        if needs < best.needs:
            best = Cut(tuple(nodes[place.position].name or "" for place in found), needs)
    return best


@dataclass(frozen=True)
class _Place:
    """In front of which node, and the bytes that are made before it and read behind it."""

    position: int
    kept: int


def _places(model: Model, sizes: Mapping[str, int]) -> list[_Place]:
    """Where a graph may be cut: in front of the first node, and where only numbers that have gradients go across, or
    such as have none; codes of a quantizer stand for what has one. The last is behind the last node.
    """
    nodes = list(model.graph)
    last = {value: position for position, node in enumerate(nodes) for value in reads((node,))}
    kept = codes = 0
    ends: dict[int, list[tuple[int, int]]] = {}
    found = [_Place(0, 0)]
    for position, node in enumerate(nodes):
        if position and not codes and node.name:
            found.append(_Place(position, kept))
        for value in node.outputs:
            size, code = sizes.get(value.name or "", 0), int(value.name in sizes and value.dtype not in FLOATS)
            end = last.get(value, position)
            if end > position:
                kept, codes = kept + size, codes + code
                ends.setdefault(end, []).append((size, code))
        for size, code in ends.pop(position, ()):
            kept, codes = kept - size, codes - code
    return [*found, _Place(len(nodes), 0)]


def _least(places: Sequence[_Place], weights: Sequence[int], bound: float) -> list[_Place] | None:
    """The places with the fewest bytes on them between which no piece is larger than this; None: there are none."""
    costs, came = [0.0], [0]
    first = 0
    for number in range(1, len(places)):
        while weights[number] - weights[first] > bound:
            first += 1
        if first == number:
            return None
        previous = min(range(first, number), key=lambda one: costs[one], default=first)
        costs.append(costs[previous] + places[number].kept)
        came.append(previous)
    found, number = [], came[-1]
    while number:
        found.append(places[number])
        number = came[number]
    return found[::-1]
