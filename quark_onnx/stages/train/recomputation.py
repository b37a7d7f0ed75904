"""A training graph under a limit of memory: activations on a few cuts are kept, all others are computed again.

forward   piece after piece, of which what later ones read is kept
back      from the last piece, each with the gradients of what it made, which come from those behind it
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from numpy.typing import NDArray

from quark_onnx.core.errors import ConfigError
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.runner import Arrays, Runner
from quark_onnx.engine.value_shapes import value_shapes
from quark_onnx.graph import Model, io, passes
from quark_onnx.graph.gradient import differentiate
from quark_onnx.graph.segments import Segment, reads, segments, submodel
from quark_onnx.graph.view import FLOATS, is_op
from quark_onnx.stages.train.pieces import Cut, cut
from quark_onnx.stages.train.training_graph import TrainingGraph

Tensors = dict[str, NDArray[Any]]


class Recomputed:
    """Returns the terms of the loss and its gradients, as a `Runner` of the whole graph does.

    It is cut for the first shard, and again for one that is larger.

    Args:
        limit: bytes of activations.
        threads: of one run.
    """

    def __init__(self, graph: TrainingGraph, limit: int, threads: int = 1) -> None:
        self._graph, self._limit, self._threads = graph, limit, threads
        self._model = io.copy(graph.forward)
        passes.lift(self._model)
        self._fits = 0
        self._way: Runner | _Pieces | None = None

    def __call__(self, feed: Feed) -> Arrays:
        """Terms, then gradients, for a feed of all inputs of the graph.

        Raises:
            ConfigError: the limit is below what the best cut needs.
        """
        size = sum(array.nbytes for array in feed.values())
        if self._way is None or size > self._fits:
            self._way, self._fits = self._cut_for(feed), size
        return self._way(feed)

    def _cut_for(self, feed: Feed) -> Runner | _Pieces:
        best = cut(self._model, _sizes(self._model, feed), self._limit)
        if best.needs > self._limit:
            raise ConfigError(
                f"QAT memory_limit: the samples that are computed together take at least {best.needs} bytes, more than "
                f"the {self._limit} that they may; raise it, or lower shard"
            )
        if not best.anchors:
            return whole_way(self._graph, self._threads)
        return _Pieces(self._graph, self._model, best, self._threads)


def whole_way(graph: TrainingGraph, threads: int) -> Runner:
    """Runs a graph as one: terms, then gradients."""
    asked = [*graph.terms.values(), *graph.gradients.values()]
    return Runner(graph.model, asked, threads=threads, fuse=False, lean=True)


def _sizes(model: Model, feed: Feed) -> dict[str, int]:
    """Bytes of floats that nodes make, and of codes."""
    shapes = value_shapes(model, feed)
    found = {}
    for node in model.graph:
        for value in node.outputs:
            like = node.inputs[0] if is_op(node, "QuantizeLinear") else value
            if like is not None and like.name in shapes and value.dtype is not None:
                found[value.name or ""] = int(prod(shapes[like.name]) * value.dtype.itemsize)
    return found


class _Pieces:
    """The pieces of a graph, from the first to the last, and back."""

    def __init__(self, graph: TrainingGraph, model: Model, where: Cut, threads: int) -> None:
        self._graph = graph
        varying, coming = _varying(model, graph.gradients), {graph.loss}
        needed = {*graph.terms.values(), graph.loss}
        self._pieces: list[_Piece] = []
        parts = segments(model, where.anchors)
        for segment in reversed(parts):
            kept = replace(segment, outputs=tuple(name for name in segment.outputs if name in needed))
            ends = segment is parts[0], segment is parts[-1]
            piece = _piece(submodel(model, kept), kept, coming, varying, ends, threads)
            coming |= piece.gradients.keys()
            needed |= set(segment.inputs)
            self._pieces.insert(0, piece)

    def __call__(self, feed: Feed) -> Arrays:
        terms = self._graph.terms.values()
        known: Tensors = dict(feed)
        for piece in self._pieces:
            known |= piece.forward(known)
        back: Tensors = {self._graph.loss: known[self._graph.incoming]}
        for piece in reversed(self._pieces):
            for name in piece.outputs:
                if name not in terms:
                    known.pop(name, None)
            known |= piece.back(known, back)
        return [*(known[name] for name in terms), *(back[name] for name in self._graph.gradients)]


@dataclass(frozen=True, eq=False)
class _Piece:
    """One of them.

    outputs    what it makes and is read behind it, or returned
    ahead      its way forward; None: it is the last, whose outputs the way back makes
    whole      both ways; None: nothing comes back through it
    incoming   output → the input that takes the gradient by it
    gradients  input → the output with the gradient by it
    """

    outputs: tuple[str, ...]
    ahead: Runner | None
    whole: Runner | None
    incoming: Mapping[str, str]
    gradients: Mapping[str, str]

    def forward(self, known: Tensors) -> Tensors:
        """Its outputs."""
        return {} if self.ahead is None else dict(zip(self.outputs, self.ahead(known), strict=True))

    def back(self, known: Tensors, back: Tensors) -> Tensors:
        """Adds the gradients by its inputs to those there are, takes those by its outputs; the last one's outputs."""
        if self.whole is None:
            return {}
        found = self.whole(known | {given: back.pop(name) for name, given in self.incoming.items()})
        for name, array in zip(self.gradients, found, strict=False):
            back[name] = back[name] + array if name in back else array
        return dict(zip(self.outputs, found[len(self.gradients) :], strict=True)) if self.ahead is None else {}


def _piece(
    model: Model,
    segment: Segment,
    coming: Collection[str],
    varying: Collection[str],
    ends: tuple[bool, bool],
    threads: int,
) -> _Piece:
    """coming: tensors whose gradient comes back; ends: whether it is the first, and the last piece."""
    first, last = ends
    ahead = None if last else Runner(model, segment.outputs, threads=threads, fuse=False, lean=True, pooled=True)
    of = [name for name in segment.outputs if name in coming]
    by = [name for name in segment.inputs if name in varying]
    if not of or not by:
        return _Piece(segment.outputs, ahead, None, {}, {})
    made = differentiate(model, of, by)
    asked = [*made.gradients.values(), *(segment.outputs if last else ())]
    whole = Runner(made.model, asked, threads=threads, fuse=False, lean=True, pooled=True, trims=first)
    return _Piece(segment.outputs, ahead, whole, made.incoming, made.gradients)


def _varying(model: Model, parameters: Collection[str]) -> set[str]:
    """Floats that parameters have a say in."""
    found = {value for value in model.graph.inputs if value.name in parameters}
    for node in model.graph:
        if not found.isdisjoint(reads((node,))):
            found.update(node.outputs)
    return {value.name or "" for value in found if value.dtype in FLOATS}
