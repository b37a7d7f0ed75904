"""Which values decide a percentile, or the extremes: the largest magnitudes. All others need no bin of their own.

told apart = the largest  max(LEAST, MANY · (100 − percent) %)  of the first values, and all later ones as large
settled    ⇔ fewer than `percent` of all values are smaller:  the percentile is in a bin that lacks none
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.ranges.calibration_statistics import INFINITE, NEGATIVE, Bins, Statistics, edges
from quark_onnx.numerics.ranges.masks_and_infinities import LOUD

LEAST = 1 / 512
MANY = 64

MOST = 1 / 4
"""Where more values than these would be told apart, as behind a clip that most values reach, all are: it is cheaper."""


def deciding_from(bins: Bins, percent: float) -> float:
    """The magnitude from which on bins decide the range that keeps `percent` of values like these; 0: all may.

    It is below `LOUD`: whether louder values stand apart from all others, these bins tell as well.
    """
    reached = _reached(bins)
    share = min(1.0, max(LEAST, MANY * (1 - percent / 100)))
    first = int(np.count_nonzero(reached >= share * reached[0])) - 1
    magnitude = float(edges(first))
    return magnitude if magnitude < LOUD and reached[first] <= MOST * reached[0] else 0.0


def settled(s: Statistics, percent: float) -> bool:
    """Whether these statistics, which may lack small values, have the range that keeps `percent` of all values."""
    if s.told == 0 or percent == 100:
        return True
    reached = _reached(s.bins)
    smaller = reached[0] - reached[int(np.float32(s.told).view(np.uint32)) >> 16]
    return bool(smaller < percent * reached[0] / 100)


def _reached(bins: Bins) -> NDArray[np.float64]:
    """How many finite values have the magnitude of each bin, or a larger one; up to the last bin that holds a value."""
    finite = bins.filled % NEGATIVE < INFINITE
    counts = np.bincount(bins.filled[finite] % NEGATIVE, bins.counts[finite], minlength=1)
    return np.cumsum(counts[::-1], dtype=np.float64)[::-1]
