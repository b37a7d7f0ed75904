"""The error of every layer: alone, with all in front of it, and what it does to the output of the model.

Alone: each piece of the quantized model (`qdq_pieces`) reads what the float model computes. What comes out, minus
what should, is then added to that tensor in the float model, which runs on to its outputs: so the noise of one layer
is followed to the end without building a model per layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.records import Measured, Slice
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.compare import compare, tensor_sqnr
from quark_onnx.engine.qdq_pieces import Piece
from quark_onnx.engine.runner import Runner, fit
from quark_onnx.graph import Model
from quark_onnx.graph.subgraphs import disturbable
from quark_onnx.graph.view import constant, output_names
from quark_onnx.numerics.metrics import Sqnr
from quark_onnx.numerics.output_pairs import paired
from quark_onnx.report.model_report import LayerError, Layers

Array = NDArray[Any]
Tick = Callable[[int], None]

WORSE = 6.0
"""dB by which the worst slice of an output is worse than the whole, from which on noise is followed to it alone."""

FOLLOWED = 2
"""Feeds whose noise is followed to the outputs: a run of the whole model for each of them and each layer."""


@dataclass(eq=False)
class _Look:
    """A piece, ready to run, and what was seen of it."""

    piece: Piece
    runner: Runner
    isolated: Sqnr = field(default_factory=Sqnr)
    rounding: Sqnr = field(default_factory=Sqnr)
    weights: dict[str, float] = field(default_factory=dict)
    at_end: Sqnr | None = None

    @classmethod
    def at(cls, piece: Piece) -> _Look:
        """At a piece, with the float arithmetic of the quantized model; its weights are rounded once and for all."""
        return cls(piece, Runner(piece.model, [piece.output], fuse=False, threads=1))

    def step(self, exact: Mapping[str, Any]) -> Array | None:
        """One feed: count the error, and return the noise; None where a tensor was not computed."""
        x = exact.get(self.piece.tensor)
        if x is None or any(tensor not in exact for tensor in self.piece.inputs.values()):
            return None
        y = x if self.piece.moves else self.runner(self._reads(exact))[0]
        self.isolated.add(x, y)
        if self.piece.grid is not None and not self.piece.moves:
            self.rounding.add(x, self.piece.grid.rounded(x))
        return np.asarray(y.astype(x.dtype) - x)

    def weigh(self, exact: Mapping[str, Any], base: Model) -> None:
        """The rounding of the weights: what the piece holds against what the float model holds."""
        floats = {weight.name: constant(base.graph.initializers.get(weight.name)) for weight in self.piece.weights}
        if not floats or any(tensor not in exact for tensor in self.piece.inputs.values()):
            return
        runner = self.runner.returning([weight.value for weight in self.piece.weights])
        for weight, rounded in zip(self.piece.weights, runner(self._reads(exact)), strict=True):
            array = floats[weight.name]
            if array is not None and array.shape == rounded.shape:
                ratio = Sqnr()
                ratio.add(array, weight.restored(rounded))
                self.weights[weight.name] = ratio.db

    def _reads(self, exact: Mapping[str, Any]) -> Feed:
        return fit({name: exact[tensor] for name, tensor in self.piece.inputs.items()}, self.piece.model)

    def error(self, accumulated: float | None) -> LayerError:
        """All of it."""
        piece, at_end = self.piece, self.at_end
        return LayerError(
            piece.tensor,
            piece.node,
            piece.op_type,
            tuple(tensor for tensor in piece.inputs.values() if tensor != piece.tensor),
            self.isolated.db,
            accumulated,
            None if piece.grid is None or piece.moves else self.rounding.db,
            min(self.weights.values(), default=None),
            None if at_end is None else at_end.db,
        )


def layer_errors(
    base: Model,
    quantized: Model,
    parts: Sequence[Piece],
    feeds: Sequence[Feed],
    *,
    followed: int = FOLLOWED,
    most: int | None = None,
    tick: Tick = lambda done: None,
) -> Layers:
    """Measure every quantized tensor of a QDQ model.

    Args:
        base: the float model that the quantized one was made from, as it was when quantizers were put in.
        parts: the `pieces` of the quantized model.
        followed: feeds whose noise is followed to the outputs of the model; 0: none.
        most: follow only so many layers, those with the largest error of their own; None: all.
        tick: called with the number of feeds done.
    """
    if not feeds or not parts:
        return Layers()
    looks = [_Look.at(piece) for piece in parts]
    ends = {piece.tensor: piece.output for piece in parts}
    accumulated = tensor_sqnr(base, quantized, feeds, ends, optimized=False)
    outputs = compare(base, quantized, feeds, optimized=False).outputs
    judged = _judged(outputs)
    part = _part(outputs[judged]) if judged else None
    walk = _Walk(base, looks, most, judged, part)
    for done, feed in enumerate(feeds, start=1):
        walk.step(feed, follow=done <= followed and bool(judged))
        tick(done)
    errors = [look.error(accumulated.get(look.piece.tensor)) for look in looks if look.isolated.signal]
    return Layers(tuple(_shared(errors)), judged, len(feeds), part)


def _judged(outputs: Mapping[str, Measured]) -> str:
    """The worst float output, as labels hardly tell one layer from another; where there is none, the worst of all."""
    worth = {name: one.db for name, one in outputs.items() if one.db is not None}
    floats = [name for name in worth if outputs[name].sqnr is not None]
    return min(floats or worth, key=lambda name: worth[name], default="")


def _part(one: Measured) -> Slice | None:
    """The slice of an output that noise is followed to, where it is what is bad of it."""
    worse = one.worst is not None and one.sqnr is not None and one.worst.sqnr <= one.sqnr - WORSE
    return one.worst if worse else None


def _shared(errors: Sequence[LayerError]) -> list[LayerError]:
    """With the part that each layer has of the noise that all of them make."""
    noise = [0.0 if e.output is None else 10 ** (-e.output / 10) for e in errors]
    total = sum(noise)
    if not 0 < total < math.inf:
        return list(errors)
    return [e if e.output is None else replace(e, share=n / total) for e, n in zip(errors, noise, strict=True)]


class _Walk:
    """The float model, run once per feed, and once more per feed and layer that is followed."""

    def __init__(self, base: Model, looks: Sequence[_Look], most: int | None, judged: str, part: Slice | None) -> None:
        self.base, self.looks, self.most, self.judged, self.part = base, looks, most, judged, part
        wanted = {name for look in looks for name in (look.piece.tensor, *look.piece.inputs.values())}
        model, self.inputs = disturbable(base, sorted(wanted))
        given = {value.name for value in base.graph.inputs}
        outputs = output_names(base)
        taps = [name for name in self.inputs if name not in given]
        self.exact = Runner(model, list(dict.fromkeys((*outputs, *taps))))
        self.end = self.exact.returning([judged])
        zeros: Feed = {name: np.zeros((), np.float32) for name in self.inputs.values()}
        self.zeros = fit(zeros, model)

    def step(self, feed: Feed, *, follow: bool) -> None:
        """One feed through all pieces, and through the model behind them."""
        exact = feed | dict(zip(self.exact.outputs, self.exact(feed | self.zeros), strict=True))
        noises = {}
        for look in self.looks:
            if not look.weights:
                look.weigh(exact, self.base)
            noise = look.step(exact)
            if noise is not None and look.piece.tensor in self.inputs:
                noises[look.piece.tensor] = noise
        for look in self._followed(noises) if follow else ():
            name = look.piece.tensor
            (y,) = self.end(feed | self.zeros | {self.inputs[name]: noises[name]})
            look.at_end = look.at_end or Sqnr()
            for pair in paired(exact[self.judged], y):
                look.at_end.add(self._seen(pair.x), self._seen(pair.y))

    def _seen(self, output: Array) -> Array:
        """What is judged of the judged output: all, or its worst slice."""
        return output if self.part is None else output.take(self.part.index, self.part.axis)

    def _followed(self, noises: Mapping[str, Array]) -> list[_Look]:
        """Those that were followed before; at first the ones with the largest error."""
        able = [look for look in self.looks if look.piece.tensor in noises]
        return [look for look in able if look.at_end] or sorted(able, key=lambda look: look.isolated.db)[: self.most]
