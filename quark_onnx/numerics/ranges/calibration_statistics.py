"""Activation statistics that merge: split the data any way, add the parts, get the same bits.

The histogram's grid is the floating-point grid itself: a bin is all float32 values that share their upper 16 bits
(sign, exponent, 7 bits of mantissa). It needs no range beforehand, is 0.8 % fine at every magnitude, costs one strided
view and one indexed addition, and adding two of them is adding integers. NaN and infinities have bins of their own.
Only bins that hold something are kept: some thousands of 65,536, in 6 bytes each.

Every value is looked at. To take every k-th one would be cheaper, but outliers of transformers sit in few channels:
measured on MiniLM, percentiles then move by up to the whole range. Where the largest decide, a `Tally` may leave others
out of their bins, see `deciding_values`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.ranges.octave_counts import BINS, OctaveCounts

NEGATIVE = 0x8000  # first bin of the negative values: the sign bit
INFINITE = 0x7F80  # magnitude bins from here on hold infinities and NaN
MINUS_INFINITY = NEGATIVE + INFINITE  # the bin of −∞; every NaN that processors make is in a later one

WAITING = 1 << 14
"""Values of small arrays that are counted together: adding the counts of all bins up costs as much as these."""

FIRST = 1 << 16
"""Values after which it is found which bins are needed, where not all are."""

Ends = tuple[float, float]


class Bins(NamedTuple):
    """The bins that hold values, ascending, and how many values each holds."""

    filled: NDArray[np.int64] | NDArray[np.uint16]
    counts: NDArray[np.int64] | NDArray[np.uint32]

    @classmethod
    def of(cls, dense: NDArray[np.int64]) -> Bins:
        """Of a count for every bin; in as few bytes as hold them."""
        filled = np.flatnonzero(dense != 0)  # a fifth of the time of finding them among integers
        counts = dense[filled]
        small = counts.max(initial=0) <= np.iinfo(np.uint32).max
        return cls(filled.astype(np.uint16), counts.astype(np.uint32) if small else counts)

    def add_to(self, dense: NDArray[np.int64]) -> NDArray[np.int64]:
        """A count for every bin, with these among them."""
        dense[self.filled] += self.counts
        return dense

    def between(self, first: int, end: int) -> Bins:
        """Those of the bins from `first` up to `end`, counted from `first`."""
        start, stop = np.searchsorted(self.filled, (first, end))
        return Bins(self.filled[start:stop].astype(np.int64) - first, self.counts[start:stop].astype(np.int64))


@dataclass(frozen=True, eq=False)
class Statistics:
    """What calibration keeps of a tensor, in memory that does not grow with the data.

    lo, hi  smallest and largest finite value; 0 counts as seen when there is none, or a value is not finite
    bins    values per bin, indexed by the upper 16 bits of the float32
    told    bins of smaller magnitudes lack values, which count as 0, see `Tally`; 0: every value is in its bin

    Law: of(a ++ b) == of(a) + of(b), exactly; `+` is associative and commutative.
    """

    lo: float
    hi: float
    bins: Bins
    told: float = 0.0

    @classmethod
    def of(cls, values: NDArray[np.generic]) -> Statistics:
        """Statistics of an array of any shape and any floating-point type; what float32 does not hold is infinite."""
        tally = Tally()
        return tally.statistics(*(tally.add(values) or (0.0, 0.0)))

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics.sum([self, other])

    @classmethod
    def sum(cls, parts: Sequence[Statistics]) -> Statistics:
        """Of all values that were seen of any part, of which there is at least one."""
        seen = [part for part in parts if part.count]
        if len(seen) < 2:
            return seen[0] if seen else parts[0]
        dense = np.zeros(BINS, np.int64)
        for part in seen:
            part.bins.add_to(dense)
        lo, hi = min(part.lo for part in seen), max(part.hi for part in seen)
        return cls(lo, hi, Bins.of(dense), max(part.told for part in seen))

    @property
    def count(self) -> int:
        """How many values were seen."""
        return int(self.bins.counts.sum(dtype=np.int64))

    @property
    def positive(self) -> Bins:
        """Finite values ≥ +0 by magnitude bin, below `INFINITE`."""
        return self.bins.between(0, INFINITE)

    @property
    def negative(self) -> Bins:
        """Finite values ≤ −0 by magnitude bin, below `INFINITE`."""
        return self.bins.between(NEGATIVE, NEGATIVE + INFINITE)

    @property
    def nonfinite(self) -> int:
        """How many values were NaN or infinite."""
        return self.count - int(self.positive.counts.sum() + self.negative.counts.sum())

    @property
    def masked(self) -> int:
        """How many values were −∞."""
        return int(self.bins.between(MINUS_INFINITY, MINUS_INFINITY + 1).counts.sum())


class Tally:
    """The histogram of a tensor while data come in; several threads may add at once.

    Law: after add(a) and add(b), in any order, the counts are those of `Statistics.of(a ++ b)`, in the bins needed.

    Args:
        told: the magnitude from which on bins are needed, found from those of the first `FIRST` values or more; 0: all
            are. Smaller values that come later count as 0.
    """

    def __init__(self, told: Callable[[Bins], float] | None = None) -> None:
        self._find, self._told = told, 0.0
        self._counts = OctaveCounts()
        self._waiting = bytearray()
        self._seen = 0
        self._lock = Lock()

    def add(self, values: NDArray[np.generic]) -> Ends | None:
        """Count the values; (lo, hi) of them as in `Statistics`, None where there are none."""
        with np.errstate(over="ignore"):
            flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        if flat.size == 0:
            return None
        lo, hi = float(np.minimum.reduce(flat)), float(np.maximum.reduce(flat))
        finite = isfinite(lo) and isfinite(hi)
        told = self._told if finite else 0.0
        kept = flat if told == 0 else flat[_beyond(flat, np.float32(told), lo, hi)]
        self._count(kept.view(np.uint16)[1::2], flat.size)  # little-endian: the odd halves are the upper ones
        return (lo, hi) if finite else _finite_ends(flat)

    def statistics(self, lo: float, hi: float) -> Statistics:
        """What was counted, with these ends."""
        with self._lock:
            self._look_at_waiting()
            dense = self._counts.dense()
            smaller = self._seen - self._counts.total
            dense[0] += smaller
            return Statistics(lo, hi, Bins.of(dense), self._told if smaller else 0.0)

    def _count(self, bins: NDArray[np.uint16], seen: int) -> None:
        with self._lock:
            self._seen += seen
            if bins.size >= WAITING:
                self._counts.add(bins)
            else:
                self._waiting += bins.tobytes()
                if len(self._waiting) > 2 * WAITING:
                    self._look_at_waiting()
            if self._find is not None and self._counts.total >= FIRST:
                self._told, self._find = self._find(Bins.of(self._counts.dense())), None

    def _look_at_waiting(self) -> None:
        self._counts.add(np.frombuffer(self._waiting, np.uint16))
        self._waiting = bytearray()


def _beyond(flat: NDArray[np.float32], told: np.float32, lo: float, hi: float) -> NDArray[np.bool_]:
    """Which of finite values are as large as this magnitude."""
    if -lo < told:
        return flat >= told
    below = flat <= -told
    return below if hi < told else np.logical_or(below, flat >= told, out=below)


def _finite_ends(flat: NDArray[np.float32]) -> Ends:
    finite = flat[np.isfinite(flat)]
    return float(finite.min(initial=0.0)), float(finite.max(initial=0.0))


def edges(bins: NDArray[np.integer] | int) -> NDArray[np.float64]:
    """Lower edge, as a magnitude, of each bin; the edge of bin + 1 is its upper edge."""
    upper = np.asarray(bins, np.uint32) << np.uint32(16)  # beside a Python integer, numpy 1 makes a 0-d array int64
    return upper.view(np.float32).astype(np.float64)
