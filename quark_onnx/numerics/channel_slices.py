"""The slices of an output along its axis of channels, each measured on its own.

One ratio of a whole output tells of the slices with large values alone: where boxes reach to 640 and scores to 1, 25 dB
of both may mean that every score is lost. docs/decisions/017 derives what is below.

The axis. Axis 0 is the batch. Channels are the first axis behind it or the last one: of three axes the shorter of the
two, as there are more positions than channels; of more, the one that is less like its neighbour, as positions come in
rows and columns of like length. An axis that the model leaves open holds positions.

The slices. Between 2 and `MOST`, each with `LEAST` numbers over all samples. A ratio of n numbers is uncertain by
10/ln 10 · √(4/n) dB: .54 dB for 256, so chance makes the worst of 4,096 slices (3.5 standard deviations) 1.9 dB worse
than it is, while the worst of 1,000 classes on 16 samples would be 7.5 dB worse by chance alone.

What is worth measuring. Slices within 0 … 1 may be probabilities: those count that reach a quarter of the highest; a
class that none of the samples shows rounds to "no". Of the rest, those whose RMS is `FAINT` of their median or more:
8 bits over ±4 RMS of the typical slice make a noise of 8/255/√12 = .009 RMS, so that of a fainter one of the same unit
nothing would be left in any case. Slices of zeros never count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.records import Slice
from quark_onnx.numerics.metrics import decibels

Floats = NDArray[np.float64]

MOST = 4096
"""Slices along an axis."""

LEAST = 256
"""Numbers in a slice, over all samples."""

FAINT = 0.01
"""RMS of a slice as a part of the median of all, from which on it counts."""

REACH = 0.25
"""Largest value of a slice of probabilities as a part of the largest of all, from which on it counts."""


def channel_axis(shape: Sequence[int], declared: Sequence[int | None] | None = None) -> int | None:
    """The axis of an output that holds channels; None where it has none.

    declared: dimensions as the model names them, None where it leaves them open.
    """
    last = len(shape) - 1
    ends = sorted({1, last}) if last > 0 else []
    if declared is not None and len(declared) == len(shape):
        ends = [axis for axis in ends if declared[axis] is not None] or ends
    if len(ends) < 2:
        return next(iter(ends), None)
    if last == 2:
        return 1 if shape[1] <= shape[2] else 2
    first, final = (abs(math.log(max(shape[a], 1) / max(shape[b], 1))) for a, b in ((1, 2), (last, last - 1)))
    return 1 if first >= final else last


class ChannelSlices:
    """Sums of the slices along one axis, over as many pairs of arrays as are added."""

    def __init__(self, axis: int, count: int) -> None:
        self.axis, self.numbers = axis, 0
        self.signal, self.noise = np.zeros(count), np.zeros(count)
        self.low, self.high = np.full(count, math.inf), np.full(count, -math.inf)

    def add(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        """Count one pair of arrays of finite values and equal shape."""
        rest = tuple(axis for axis in range(x.ndim) if axis != self.axis)
        self.numbers += x.size // max(1, len(self.signal))
        self.signal += np.square(x).sum(rest)
        self.noise += np.square(x - y).sum(rest)
        self.low = np.minimum(self.low, x.min(rest, initial=math.inf))
        self.high = np.maximum(self.high, x.max(rest, initial=-math.inf))

    @property
    def worst(self) -> Slice | None:
        """The slice with the least ratio, of those worth measuring; None where there is none, or too few numbers."""
        counted = np.flatnonzero(self._counted())
        if self.numbers < LEAST or not counted.size:
            return None
        with np.errstate(divide="ignore"):
            ratios = self.signal[counted] / self.noise[counted]
        index = int(counted[ratios.argmin()])
        return Slice(self.axis, index, decibels(float(self.signal[index]), float(self.noise[index])))

    def _counted(self) -> NDArray[np.bool_]:
        """Which slices are worth measuring."""
        some = self.signal > 0
        shares = some & (self.low >= 0) & (self.high <= 1)
        others = some & ~shares
        reach = self.high[shares].max(initial=0.0)
        typical = np.median(np.sqrt(self.signal[others])) if others.any() else 0.0
        likely, loud = self.high >= REACH * reach, np.sqrt(self.signal) >= FAINT * typical
        return np.asarray((shares & likely) | (others & loud))
