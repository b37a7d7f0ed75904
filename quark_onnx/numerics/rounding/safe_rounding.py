"""Plain rounding of weights whose neighbours bound each other: scale of a row and codes chosen together.

    minimize  Σ_k var_k e_k² + (Σ_k mean_k e_k)²,   e = s·c − w

over safe codes c, and scales s not below that of the largest weight,
is the mean squared error of the row's output for inputs of these means and variances that do not vary together. The
second term is what matters: making a pair safe moves weights towards zero, which shifts the output; codes elsewhere in
the row can take that back (MobileNet: 5.3 dB by the error of the weights alone, 14.1 dB so, 14.1 dB without a limit).
Codes by coordinate descent, which needs only the running shift of a row, so that a sweep costs no more than the weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.rounding.weight_grid import WeightGrid, nearest
from quark_onnx.numerics.weight_pairs import LIMIT, partners, unsafe_pairs

F32 = NDArray[np.float32]

GROWTH = (1.03, 1.07, 1.12, 1.2, 1.35, 1.6, 127 / 64)
"""Scales to try, in parts of the largest weight's; at the last one no pair can be unsafe."""

SWEEPS = 2

PART = 2**23
"""Weights that are looked at together: what is computed of them is a dozen times their size."""

BUDGET = 2**22
"""Weights that are descended at once."""

TOGETHER = 2**20
"""Weights, each at several scales, that are descended at once: of few rows, calling numpy takes most of the time."""

MUCH = 4.0
"""Activations that are rounded, too, make as much noise as weights do: less than this does not show."""

NOTHING = 1e-5
"""Part of the output's mean square, 50 dB, below which an error is not worth a slower kernel."""

EXACT = np.float32(1e-10)
"""Part of the output's mean square that the rounding of float32 makes."""

LEAST = 1e-300
"""Instead of an error of 0, in ratios."""

DAMPING = np.float32(1e-6)
"""Part of the mean of var + mean² that every input has: one that is never seen must not divide by zero."""


class Inputs(NamedTuple):
    """What is known of a layer's inputs: mean and variance, (G, K)."""

    mean: F32
    variance: F32

    @classmethod
    def unknown(cls, shape: tuple[int, int]) -> Inputs:
        """Of a layer that no data reached: all alike, half as large on average as they vary."""
        return cls(np.full(shape, 0.5, np.float32), np.ones(shape, np.float32))

    def damped(self) -> Inputs:
        """With a variance above 0."""
        floor = DAMPING * (self.variance + np.square(self.mean)).mean() + np.float32(1e-30)
        return Inputs(self.mean, self.variance + floor)

    def loss(self, weight: F32) -> F32:
        """(G, R): the mean squared output of rows (G, R, K)."""
        return _loss(weight, self.mean[:, None], self.variance[:, None])


class SafeRounding(NamedTuple):
    """codes (G, R, K) with safe pairs, scale (G, R); the mean squared errors, Σ over rows, of nearest codes at the
    grid's scale and of these; and the mean square of the output."""

    codes: NDArray[np.int16]
    scale: F32
    nearest_loss: float
    loss: float
    signal: float

    @property
    def decibel(self) -> float:
        """How much larger the error is than that of nearest codes."""
        return 10 * math.log10(max(self.loss, LEAST) / max(self.nearest_loss, LEAST))

    @property
    def costs_much(self) -> bool:
        """Whether the error is `MUCH` larger, and not far below what eight bits do anyway."""
        return self.loss > MUCH * self.nearest_loss and self.loss > NOTHING * self.signal


def round_safely(weight: F32, grid: WeightGrid, inputs: Inputs, scales: Sequence[F32] = ()) -> SafeRounding | None:
    """Safe codes, near the weights (G, R, K) in what they do to the output; None where the nearest ones are safe.

    A row that is safe when rounded to nearest stays so.

    Args:
        scales: larger ones (G, R) to try, for rows one by one, or for all together where they share one.
    """
    layer = _Layer.of(weight, grid)
    codes, unsafe = np.empty(weight.shape, np.int16), np.empty(grid.scale.shape, bool)
    for part in layer.parts:
        found = nearest(weight[:, part], grid.scale[:, part], layer.low[:, part], layer.high[:, part])
        codes[:, part], unsafe[:, part] = found, unsafe_pairs(found, grid.safe_run).any(-1)
    if not unsafe.any():
        return None
    inputs = inputs.damped()
    scale, *scales = (np.ldexp(s, -layer.power) for s in (grid.scale, *scales))
    loss, signal = np.empty(scale.shape, np.float32), np.empty(scale.shape, np.float32)
    for part in layer.parts:
        near = layer.near_one(part)
        loss[:, part] = inputs.loss(codes[:, part] * scale[:, part, None] - near)
        signal[:, part] = inputs.loss(near)
    before = _total(loss, layer.power)
    tried = [*reversed(scales), scale]  # the largest first: weights of one size lose nothing there
    again = unsafe
    if grid.shared:  # all rows are rounded anew
        again = np.ones_like(unsafe)
        tried = [layer.best_together(tried, EXACT * signal, inputs)]
    for part in layer.parts:
        at = np.nonzero(again[:, part])
        rows = layer.rows(part, at, inputs)
        best = rows.best([s[:, part][at] for s in tried], EXACT * signal[:, part][at])
        codes[:, part][at], scale[:, part][at], loss[:, part][at] = best
    totals = (_total(part, layer.power) for part in (loss, signal))
    return SafeRounding(codes, np.ldexp(scale, layer.power), before, *totals)


class _Layer(NamedTuple):
    """Weights (G, R, K), the bounds of their codes (G, R, 1), the power of two of each row's scale (G, R), and the
    columns in whose runs pairs must be safe."""

    weight: F32
    low: F32
    high: F32
    power: NDArray[np.int32]
    run: int

    @classmethod
    def of(cls, weight: F32, grid: WeightGrid) -> _Layer:
        low, high = (np.broadcast_to(np.asarray(b, np.float32), (*grid.scale.shape, 1)) for b in (grid.low, grid.high))
        return cls(weight, low, high, np.frexp(grid.scale)[1], grid.safe_run)

    @property
    def parts(self) -> list[slice]:
        """The rows of every group, so many at a time that they hold `PART` weights."""
        groups, rows, inputs = self.weight.shape
        step = max(1, PART // max(1, groups * inputs))
        return [slice(first, first + step) for first in range(0, rows, step)]

    def near_one(self, part: slice) -> F32:
        """Weights with every row near 1, exactly: squares of tiny scales would be 0."""
        return np.ldexp(self.weight[:, part], -self.power[:, part, None])

    def rows(self, part: slice, at: tuple[NDArray[np.intp], ...], inputs: Inputs) -> _Rows:
        """Some rows of a part."""
        low, high = (bound[:, part][at] for bound in (self.low, self.high))
        group = at[0] if len(inputs.mean) > 1 else slice(None)
        return _Rows(self.near_one(part)[at], low, high, inputs.mean[group], inputs.variance[group], self.run)

    def best_together(self, scales: Sequence[F32], enough: F32, inputs: Inputs) -> F32:
        """The scale with the least loss of all rows; the first where that is no more than `enough`."""
        best, (first, *_) = scales[0], self._lost(scales[:1], inputs)
        least = first.sum()
        others = scales[1:] if least > enough.sum() else ()
        for other, lost in zip(others, self._lost(others, inputs), strict=True):
            best, least = (other, lost.sum()) if lost.sum() < least else (best, least)
        return best

    def _lost(self, scales: Sequence[F32], inputs: Inputs) -> list[F32]:
        """The losses of all rows at each scale."""
        found: list[list[F32]] = [[] for _ in scales]
        for part in self.parts:
            at = np.nonzero(np.ones(self.power[:, part].shape, bool))
            tried = self.rows(part, at, inputs).each([scale[:, part][at] for scale in scales])
            for losses, (_, _, lost) in zip(found, tried, strict=True):
                losses.append(lost)
        return [np.concatenate(losses) for losses in found]


def _total(loss: F32, power: NDArray[np.int32]) -> float:
    """The sum of the losses (G, R) of rows that were divided by 2^power."""
    return float(np.ldexp(loss.astype(np.float64), 2 * power).sum())


class _Rows(NamedTuple):
    """Rows (N, K) with bounds (N, 1), mean and variance of the inputs: of each, (N, K), or of all alike, (1, K); and
    the columns in whose runs pairs must be safe."""

    weight: F32
    low: F32
    high: F32
    mean: F32
    variance: F32
    run: int

    def best(self, scales: Sequence[F32], enough: F32) -> tuple[F32, F32, F32]:
        """Safe codes, scale and loss of every row: at the scale (N,) with the least loss.

        enough: losses (N,) with which the first scale is taken, and no other one tried.
        """
        codes, loss = self.safe(scales[0])
        scale = scales[0].copy()
        some = np.flatnonzero(loss > enough)
        rows = self.some(some) if len(scales) > 1 and len(some) else self
        for other, found, lost in rows.each([other[some] for other in scales[1:]]) if len(some) else ():
            takes = lost < loss[some]
            at = some[takes]
            codes[at], scale[at], loss[at] = found[takes], other[takes], lost[takes]
        return codes, scale, loss

    def some(self, at: NDArray[np.intp]) -> _Rows:
        """These rows; one may be named several times."""
        weight, low, high, mean, variance = (a if len(a) < len(self.weight) else a[at] for a in self[:-1])
        return _Rows(weight, low, high, mean, variance, self.run)

    def each(self, scales: Sequence[F32]) -> Iterator[tuple[F32, F32, F32]]:
        """Each of these scales (N,) with its safe codes and losses, several computed at a time."""
        step = max(1, TOGETHER // max(1, self.weight.size))
        for first in range(0, len(scales), step):
            tried = scales[first : first + step]
            every = np.tile(np.arange(len(self.weight)), len(tried))
            found = self.some(every).safe(np.concatenate(tried))
            yield from zip(tried, *(np.split(array, len(tried)) for array in found), strict=True)

    def safe(self, scale: F32) -> tuple[F32, F32]:
        """Codes at these scales, nearest ones and in rows where these are unsafe the best that are safe; and losses."""
        codes = nearest(self.weight, scale, self.low, self.high)
        unsafe = np.flatnonzero(unsafe_pairs(codes, self.run).any(-1))
        step = max(1, BUDGET // self.weight.shape[-1])
        for first in range(0, len(unsafe), step):
            some = unsafe[first : first + step]
            rows = self.some(some)
            start = nearest(rows.weight, scale[some], rows.low, rows.high, self.run)
            codes[some] = _descend(start, scale[some], rows)
        return codes, _loss(codes * scale[:, None] - self.weight, self.mean, self.variance)


def _loss(error: F32, mean: F32, variance: F32) -> F32:
    shift = np.einsum("...k,...k->...", error, np.broadcast_to(mean, error.shape))
    spread = np.einsum("...k,...k->...", np.square(error), np.broadcast_to(variance, error.shape))
    return np.asarray(spread + np.square(shift), np.float32)


def _descend(codes: F32, scale: F32, rows: _Rows) -> F32:
    """Each column in turn set to its best safe code; inside, columns come first: each is one piece of memory."""
    c, w, mu, var = (np.ascontiguousarray(a.T) for a in (codes, rows.weight, rows.mean, rows.variance))
    low, high = rows.low[:, 0], rows.high[:, 0]
    shift = (mu * (c * scale - w)).sum(0)
    squares = var + np.square(mu)
    for _ in range(SWEEPS):
        for j, partner in enumerate(partners(len(c), rows.run)):
            half = var[j] * (c[j] * scale - w[j]) + mu[j] * shift
            lowest, highest = low, high
            if partner != j:
                lowest, highest = np.maximum(low, -LIMIT - c[partner]), np.minimum(high, LIMIT - c[partner])
            best = np.minimum(np.maximum(np.rint(c[j] - half / (squares[j] * scale)), lowest), highest)
            shift += mu[j] * (best - c[j]) * scale
            c[j] = best
    return np.ascontiguousarray(c.T)
