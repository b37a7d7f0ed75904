"""How values are spread: intervals with counts, and the error that any grid would make on them, in closed form.

The range methods look at this and not at the data. Inside an interval the values are taken as uniform and errors are
integrals, so that a 16-bit grid with hundreds of steps inside one bin of the histogram is judged as well as a 4-bit
one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quark_onnx.numerics.matrix_products import product
from quark_onnx.numerics.ranges.calibration_statistics import Statistics, edges

CELLS = 1 << 16
"""Candidates · intervals that are looked at in one piece: half a MB per array stays in the cache."""

Floats = NDArray[np.float64]
Mean = Callable[[Any, Any], Any]


@dataclass(frozen=True, eq=False)
class Distribution:
    """Values as disjoint intervals in ascending order.

    low, high  (n,) ends of the intervals, low ≤ high; a single value has low == high
    counts     (n,) values in each
    lo, hi     the smallest and the largest value, exact
    """

    low: Floats
    high: Floats
    counts: NDArray[np.int64]
    lo: float
    hi: float

    @classmethod
    def of(cls, s: Statistics) -> Distribution:
        """The finite values of a histogram; empty where none were seen.

        The outermost bins end at the exact extremes; what is beyond them, when they are moving averages, counts as
        if at the end. The bin around zero, |x| < 2⁻¹³³, becomes the value 0.
        """
        sides = s.negative, s.positive
        zeros = int(sum(side.counts[side.filled == 0].sum() for side in sides))
        middle = np.zeros(1 if zeros else 0)
        (below, fewer), (above, more) = ((side.filled[side.filled > 0], side.counts[side.filled > 0]) for side in sides)
        below = below[::-1]
        low = np.concatenate([-edges(below + 1), middle, edges(above)])
        high = np.concatenate([-edges(below), middle, edges(above + 1)])
        counts = np.concatenate([fewer[::-1], np.full(middle.size, zeros), more]).astype(np.int64)
        least, most = (min(s.lo, 0.0), max(s.hi, 0.0)) if zeros else (s.lo, s.hi)
        return cls(np.clip(low, least, most), np.clip(high, least, most), counts, s.lo, s.hi)

    @classmethod
    def of_values(cls, values: NDArray[Any]) -> Distribution:
        """The finite ones of an array's values, each a point: exact. Meant for up to some 10⁵ values."""
        flat = np.asarray(values, np.float64).reshape(-1)
        points, counts = np.unique(flat[np.isfinite(flat)], return_counts=True)
        lo, hi = (float(points[0]), float(points[-1])) if points.size else (0.0, 0.0)
        return cls(points, points, counts.astype(np.int64), lo, hi)

    @property
    def count(self) -> int:
        """How many values there are."""
        return int(self.counts.sum())

    def errors(self, scale: ArrayLike, zero_point: ArrayLike, lo: ArrayLike, hi: ArrayLike) -> tuple[Floats, Floats]:
        """Sums of squared error of the values inside and outside the grid [(lo − z)·s, (hi − z)·s].

        The arguments broadcast; each result has their common shape. scale > 0.
        """
        return self._sums(_square, 2, scale, zero_point, lo, hi)

    def absolute(self, scale: ArrayLike, zero_point: ArrayLike, lo: ArrayLike, hi: ArrayLike) -> tuple[Floats, Floats]:
        """Sums of absolute error of the values inside and outside the grid, as `errors`."""
        return self._sums(_distance, 1, scale, zero_point, lo, hi)

    def below(self, points: ArrayLike, side: Literal["left", "right"] = "left") -> Floats:
        """How many values are smaller than each point; side "right": smaller or equal. Ends of intervals are sharp."""
        at = np.asarray(points, np.float64)
        if not self.low.size:
            return np.zeros(at.shape)
        begun = np.searchsorted(self.low, at, side)  # intervals that begin below the point; the last may reach over it
        last = np.maximum(begun - 1, 0)
        over = np.where(begun > 0, np.maximum(self.high[last] - at, 0.0), 0.0)
        width = np.where(over > 0, self.high[last] - self.low[last], 1.0)
        return np.asarray(self._totals[begun] - self.counts[last] * (over / width))

    def linear(self, start: float, width: float, bins: int) -> Floats:
        """(bins,) values per bin of an even grid, the last bin closed; values outside the grid are left out."""
        grid = np.arange(bins + 1.0)
        unit = Distribution((self.low - start) / width, (self.high - start) / width, self.counts, self.lo, self.hi)
        total = unit.below(grid)
        total[-1] = unit.below(grid[-1], "right")
        return np.asarray(np.maximum(np.diff(total), 0.0))

    def above(self, floor: float) -> Distribution:
        """The values as they are after max(x, floor), floor < 0."""
        low = np.maximum(self.low, floor)
        high = low if self.high is self.low else np.maximum(self.high, floor)
        return Distribution(low, high, self.counts, max(self.lo, floor), max(self.hi, floor))

    def folded(self) -> tuple[Distribution, Distribution]:
        """|x| of the values from 0 upwards, and of those below; no interval may have 0 inside."""
        split = int(np.searchsorted(self.low, 0.0))
        above = Distribution(
            self.low[split:], self.high[split:], self.counts[split:], max(self.lo, 0.0), max(self.hi, 0.0)
        )
        low, high = -self.high[:split][::-1], -self.low[:split][::-1]
        return above, Distribution(low, high, self.counts[:split][::-1], max(-self.hi, 0.0), max(-self.lo, 0.0))

    def mean(self) -> float:
        """The mean; 0 of nothing."""
        middles: Floats = (self.low + self.high) / 2
        return float(product(self.counts.astype(np.float64), middles)) / max(self.count, 1)

    def mean_square(self, about: float = 0.0) -> float:
        """The mean of (x − about)²; 0 of nothing."""
        return float(product(self.counts, _square(self.low - about, self.high - about))) / max(self.count, 1)

    def _sums(self, mean: Mean, power: int, *grid: ArrayLike) -> tuple[Floats, Floats]:
        scale, zero_point, lo, hi = np.broadcast_arrays(*(np.asarray(part, np.float64) for part in grid))
        flat = scale.ravel(), (lo - zero_point).ravel(), (hi - zero_point).ravel()
        if not self.low.size:
            return np.zeros(scale.shape), np.zeros(scale.shape)
        clipping = self._below.sums(flat[0] * flat[1], power) + self._above.sums(-flat[0] * flat[2], power)
        step = max(CELLS // self.low.size, 1)
        parts = [self._rounding(mean, *(x[i : i + step] for x in flat)) for i in range(0, flat[0].size, step)]
        rounding = np.concatenate([*parts, np.zeros(0)]) * flat[0] ** power
        return rounding.reshape(scale.shape), clipping.reshape(scale.shape)

    def _rounding(self, mean: Mean, scale: Floats, first: Floats, last: Floats) -> Floats:
        """(k,) sums of rounding error in steps; the grid's ends are given in steps from 0.

        Intervals beyond the grid shrink to its end, where the error is none; those that reach over it count in part.
        """
        low = np.clip(self.low / scale[:, None], first[:, None], last[:, None])
        if self.low is self.high:
            return np.asarray(product(mean(*[low - np.rint(low)] * 2), self.counts))
        high = np.clip(self.high / scale[:, None], first[:, None], last[:, None])
        errors = _periodic(low, high, mean)
        rows, previous = np.arange(scale.size), np.full(scale.size, -1)
        for end in (first * scale, last * scale):
            k = np.minimum(np.searchsorted(self.high, end), self.high.size - 1)
            width = (self.high[k] - self.low[k]) / scale
            part = (high[rows, k] - low[rows, k]) / np.where(width > 0, width, 1.0)
            errors[rows, k] *= np.where((width > 0) & (k != previous), part, 1.0)
            previous = k
        return np.asarray(product(errors, self.counts.astype(np.float64)))

    @cached_property
    def _totals(self) -> Floats:
        return np.append(0.0, np.cumsum(self.counts))

    @cached_property
    def _below(self) -> _Tail:
        return _Tail(self.low, self.high, self.counts)

    @cached_property
    def _above(self) -> _Tail:
        return _Tail(-self.high[::-1], -self.low[::-1], self.counts[::-1])


class _Tail:
    """Sums of distances of values to a threshold above them, from prefix sums of the first moments."""

    def __init__(self, low: Floats, high: Floats, counts: NDArray[np.int64]) -> None:
        self.low, self.high, self.counts = low, high, counts
        moments = counts, counts * (low + high) / 2, counts * _square(low, high)
        self.totals = [np.append(0.0, np.cumsum(moment)) for moment in moments]

    def sums(self, threshold: Floats, power: int) -> Floats:
        """(k,) Σ (threshold − x)^power of the values x below each threshold; power is 1 or 2."""
        whole = np.searchsorted(self.high, threshold, "right")
        count, first, second = (total[whole] for total in self.totals)
        sums = threshold * count - first if power == 1 else threshold * (threshold * count - 2 * first) + second
        k = np.minimum(whole, self.low.size - 1)
        inside = np.where((whole < self.low.size) & (self.low[k] < threshold), threshold - self.low[k], 0.0)
        width = np.where(inside > 0, self.high[k] - self.low[k], 1.0)
        partly = self.counts[k] * inside**power * (inside / width) / (power + 1)
        return np.asarray(np.maximum(sums, 0.0) + partly)


def _square(x: Any, y: Any) -> Any:
    """Mean of v² over v in [x, y]."""
    return (x * x + x * y + y * y) / 3


def _distance(x: Any, y: Any) -> Any:
    """Mean of |v| over v in [x, y]."""
    size = np.abs(x) + np.abs(y)
    return np.where(x * y < 0, (x * x + y * y) / np.where(size > 0, size, 1.0), size) / 2


def _periodic(low: Floats, high: Floats, mean: Mean) -> Floats:
    """Mean error of rounding over [low, high], in steps; `mean` gives it for an interval around one grid point.

    An interval over several grid points is the rest of its first step, whole steps, and the beginning of its last:
    only sums of positive terms, so that nothing cancels however narrow the interval is.
    """
    first, last = np.rint(low), np.rint(high)
    below, above = low - first, high - last
    errors: Floats = np.asarray(mean(below, above))
    over = np.nonzero(first != last)
    below, above = below[over], above[over]
    steps, begin, end = last[over] - first[over] - 1, 0.5 - below, above + 0.5
    whole = begin * mean(below, 0.5) + steps * mean(-0.5, 0.5) + end * mean(-0.5, above)
    errors[over] = whole / (begin + steps + end)
    return errors
