"""Mean and variance of every channel of chosen tensors over the first samples of the calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.kept_feeds import first
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, io
from quark_onnx.graph.channel_probe import with_channel_moments

Tick = Callable[[int], None]
Channels = tuple[str, int]
Moment = tuple[NDArray[np.float32], NDArray[np.float32]]
Moments = dict[Channels, Moment]

HUGE = 1e20
"""Sums of squares from which on float32 has no room for what is made of them: squares of sums times weights."""

SAMPLES = 64
"""Samples that are looked at: means per channel settle long before ranges do."""


def channel_moments(
    model: Model, feeds: Iterable[Feed], wanted: Sequence[Channels], tick: Tick, counted: Counted | None = None
) -> Moments:
    """Per entry of `wanted`, a tensor and its axis of channels, mean and variance over samples and all other axes.

    onnxruntime reduces each sample; the means of samples are added in float64, one after the other, so that the result
    does not depend on how they are batched. Entries whose rank, number of channels or float type is unknown, that are
    huge or not finite, or of which no value is seen, are left out; without any other no feed is read. `tick` is called
    with the number of feeds done.

    counted: which positions count; None: all. Where some do not, tensors are reduced here.
    """
    cut = [key for key in wanted if counted is not None and key[0] in counted.axes]
    probed, names = with_channel_moments(model, [key for key in wanted if key not in cut])
    totals = {key: _Total() for key in (*names, *cut)}
    if names:
        runner = Runner(probed, [output for three in names.values() for output in three])
        for done, (_, arrays) in enumerate(runner.stream(first(feeds, SAMPLES)), start=1):
            for key, mean, square, size in zip(names, arrays[::3], arrays[1::3], arrays[2::3], strict=True):
                if size:
                    totals[key].add(np.atleast_2d(mean), np.atleast_2d(square))
            tick(done)
    if cut and counted is not None:
        _add_counted(model, first(feeds, SAMPLES), cut, counted, totals)
    return {key: moment for key, total in totals.items() if (moment := total.moment) is not None}


def _add_counted(
    model: Model, feeds: Iterable[Feed], wanted: Sequence[Channels], counted: Counted, totals: Mapping[Channels, _Total]
) -> None:
    given = {value.name for value in model.graph.inputs}
    names = [name for name in dict.fromkeys(name for name, _ in wanted) if name not in given]
    runner = Runner(io.with_outputs(model, names), names or None)
    for feed, arrays in runner.stream(feeds):
        values = feed | dict(zip(runner.outputs, arrays, strict=True))
        for name, axis in wanted:
            for part in counted.parts(name, values[name], feed):
                rows = np.moveaxis(part, axis, -1).reshape(-1, part.shape[axis]).astype(np.float64)
                if len(rows):
                    totals[name, axis].add(rows.mean(0, keepdims=True), np.square(rows).mean(0, keepdims=True))


@dataclass
class _Total:
    """Sums of the means of samples, and of their squares."""

    count: int = 0
    means: Any = 0.0
    squares: Any = 0.0

    def add(self, means: NDArray[Any], squares: NDArray[Any]) -> None:
        """(N, C) of some samples."""
        self.count += len(means)
        for mean, square in zip(means.astype(np.float64), squares.astype(np.float64), strict=True):
            self.means, self.squares = self.means + mean, self.squares + square

    @property
    def moment(self) -> Moment | None:
        """Mean and variance; None where there is none, or it is no number."""
        if not self.count or not (np.abs(self.squares) < HUGE).all():
            return None
        mean = self.means / self.count
        variance = np.maximum(self.squares / self.count - np.square(mean), 0)
        return mean.astype(np.float32), variance.astype(np.float32)
