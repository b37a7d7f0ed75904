"""Mean and variance of every channel of chosen tensors over the first samples of the calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.crew import Crew, passed
from quark_onnx.engine.kept_feeds import first
from quark_onnx.graph import Model
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
    model: Model,
    feeds: Iterable[Feed],
    wanted: Sequence[Channels],
    tick: Tick,
    counted: Counted | None = None,
    crew: Crew | None = None,
) -> Moments:
    """Per entry of `wanted`, a tensor and its axis of channels, mean and variance over samples and all other axes.

    onnxruntime reduces each sample; the means of samples are added in float64, one after the other, so that the result
    does not depend on how they are batched. Entries whose rank, number of channels or float type is unknown, that are
    huge or not finite, or of which no value is seen, are left out; without any other no feed is read. `tick` is called
    with the number of feeds done.

    counted: which positions count; None: all. Where some do not, tensors are reduced here.
    crew: whose processes look at samples; None: this one does.
    """
    cut = [key for key in wanted if counted is not None and key[0] in counted.axes]
    probed, names = with_channel_moments(model, [key for key in wanted if key not in cut])
    totals = {key: _Total() for key in (*names, *cut)}
    if names:
        every = [output for three in names.values() for output in three]
        passes = passed(probed, every, first(feeds, SAMPLES), partial(_reduced, names), crew)
        for done, found in enumerate(passes, start=1):
            _add(totals, found)
            tick(done)
    if cut and counted is not None:
        tensors = list(dict.fromkeys(name for name, _ in cut))
        for found in passed(model, tensors, first(feeds, SAMPLES), partial(_counted, cut, counted), crew):
            _add(totals, found)
    return {key: moment for key, total in totals.items() if (moment := total.moment) is not None}


Found = list[tuple[Channels, NDArray[Any], NDArray[Any]]]
"""Means and means of squares, (N, C), of samples that hold values."""


def _reduced(names: Mapping[Channels, Sequence[str]], number: int, values: Mapping[str, Any]) -> Found:
    """What the model has reduced."""
    found = ((key, *(values[output] for output in three)) for key, three in names.items())
    return [(key, np.atleast_2d(mean), np.atleast_2d(square)) for key, mean, square, size in found if size]


def _counted(wanted: Sequence[Channels], counted: Counted, number: int, values: Mapping[str, Any]) -> Found:
    found = []
    for name, axis in wanted:
        for part in counted.parts(name, values[name], values):
            rows = np.moveaxis(part, axis, -1).reshape(-1, part.shape[axis]).astype(np.float64)
            if len(rows):
                found.append(((name, axis), rows.mean(0, keepdims=True), np.square(rows).mean(0, keepdims=True)))
    return found


def _add(totals: Mapping[Channels, _Total], found: Found) -> None:
    for key, means, squares in found:
        totals[key].add(means, squares)


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
