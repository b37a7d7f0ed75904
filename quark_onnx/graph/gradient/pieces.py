"""A graph differentiated piece by piece, so that what a piece computes inside is forgotten, and computed again.

    forward    x ─▶ piece 1 ─▶ border ─▶ piece 2 ─▶ border ─▶ …      only borders are kept
    back       … ◀─ piece 2 again, and back ◀─ gradient by its border

Memory is that of the borders and of one piece; each piece but the last is computed twice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import onnx_ir as ir

from quark_onnx.graph.element_types import infer_types
from quark_onnx.graph.gradient.differentiation import Differentiated, differentiate
from quark_onnx.graph.gradient.quantizers import RANGES
from quark_onnx.graph.io import copy
from quark_onnx.graph.segments import reads, segments, submodel
from quark_onnx.graph.view import FLOATS, shape

MOST = 32
"""Pieces; more give little, and each is a session."""


@dataclass(frozen=True)
class Piece:
    """A part of a graph.

    model   computes `made`: what later pieces read, and outputs of the graph that are asked for
    inputs  what it reads
    back    the same, and gradients by inputs; None: nothing comes back to it
    """

    model: ir.Model
    inputs: tuple[str, ...]
    made: tuple[str, ...]
    back: Differentiated | None


@dataclass(frozen=True)
class Cuts:
    """Nodes in front of which a graph is cut, and the bytes that a step takes then, about."""

    anchors: tuple[str, ...]
    size: int


def pieces(
    model: ir.Model, anchors: Collection[str], of: str, by: Sequence[str], asked: Collection[str]
) -> list[Piece]:
    """The pieces of a model between the anchors, each differentiated by itself.

    Args:
        of: a scalar of the model, the loss.
        by: inputs of the model.
        asked: outputs that are wanted as well.
    """
    model = copy(model)
    infer_types(model)
    parts = segments(model, anchors)
    read = {name for part in parts for name in part.inputs}
    made = {name for part in parts for name in part.outputs}
    kinds = {value.name: value.dtype for value in (*model.graph.inputs, *(v for n in model.graph for v in n.outputs))}
    returned, found = {of}, []
    for part in reversed(parts):
        outputs = tuple(name for name in part.outputs if name in read or name in asked)
        inner = submodel(model, part)
        incoming = [name for name in part.outputs if name in returned]
        wanted = [name for name in part.inputs if name in by or (name in made and kinds[name] in FLOATS)]
        back = differentiate(inner, incoming, wanted) if incoming and wanted else None
        returned |= set() if back is None else back.gradients.keys()
        found.append(Piece(inner, part.inputs, outputs, back))
    return found[::-1]


def cuts(model: ir.Model, limit: int, samples: int) -> Cuts:
    """The fewest pieces with which a step takes no more than `limit` bytes; those that take the least if none do.

    Args:
        model: whose nodes have names.
        samples: of a step: what a dimension that the model leaves open in front is.
    """
    model = copy(model)
    infer_types(model)
    nodes = list(model.graph)
    sizes = [sum(_size(value, samples) for value in node.outputs) for node in nodes]
    borders = _borders(nodes, samples)
    best = _estimate((), sizes, borders)
    tried = (_evenly(sizes, borders, count) for count in range(2, MOST + 1))
    for places in dict.fromkeys(tried):
        if best[0] <= limit:
            break
        best = min(best, _estimate(places, sizes, borders))
    return Cuts(tuple(nodes[place].name or "" for place in best[1]), best[0])


def _estimate(places: tuple[int, ...], sizes: Sequence[int], borders: dict[int, int]) -> tuple[int, tuple[int, ...]]:
    """Bytes of the borders and of the largest piece, in which about as much comes back as is kept."""
    inside = max(sum(sizes[a:b]) for a, b in pairwise((0, *places, len(sizes))))
    return sum(borders[place] for place in places) + inside, places


def _evenly(sizes: Sequence[int], borders: dict[int, int], count: int) -> tuple[int, ...]:
    """Where to cut for pieces of about the same size; fewer, where there is no border near."""
    ahead = [0]
    for size in sizes:
        ahead.append(ahead[-1] + size)
    goals = [ahead[-1] * number / count for number in range(1, count)]
    places = {min(borders, key=lambda place: abs(ahead[place] - goal)) for goal in goals} if borders else set()
    return tuple(sorted(places))


def _borders(nodes: Sequence[ir.Node], samples: int) -> dict[int, int]:
    """Nodes in front of which no codes of a quantizer are alive, which have no gradient of their own; bytes there."""
    last = {value: index for index, node in enumerate(nodes) for value in reads((node,))}
    alive: set[ir.Value] = set()
    found = {}
    for index, node in enumerate(nodes):
        alive = {value for value in alive if last[value] >= index}
        if alive and not any(value.dtype is None or value.dtype.name in RANGES for value in alive):
            found[index] = sum(_size(value, samples) for value in alive)
        alive |= {value for value in node.outputs if value in last}
    return found


def _size(value: ir.Value, samples: int) -> int:
    dims = shape(value)
    if dims is None or value.dtype is None:
        return 0
    known = [dim or (1 if axis else samples) for axis, dim in enumerate(dims)]
    return int(prod(known) * value.dtype.itemsize)
