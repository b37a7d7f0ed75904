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
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.rounding.weight_grid import WeightGrid, nearest
from quark_onnx.numerics.weight_pairs import LIMIT, unsafe_pairs

F32 = NDArray[np.float32]

GROWTH = (1.02, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.55, 1.75, 127 / 64)
"""Scales to try, in parts of the largest weight's; at the last one no pair can be unsafe."""

SWEEPS = 2

BUDGET = 2**22
"""Weights that are descended at once."""

MUCH = 4.0
"""Activations that are rounded, too, make as much noise as weights do: less than this does not show."""

NOTHING = 1e-5
"""Part of the output's mean square, 50 dB, below which an error is not worth a slower kernel."""

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

    codes: F32
    scale: F32
    nearest_loss: float
    loss: float
    signal: float

    @property
    def decibel(self) -> float:
        """How much larger the error is than that of nearest codes."""
        return 10 * math.log10(max(self.loss, 1e-30) / max(self.nearest_loss, 1e-30))

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
    inputs, scale = inputs.damped(), grid.scale
    codes = nearest(weight, scale, grid.low, grid.high)
    unsafe = unsafe_pairs(codes).any(-1)
    if not unsafe.any():
        return None
    before = inputs.loss(codes * scale[..., None] - weight)
    loss = np.full_like(before, np.inf)
    for larger in (grid.scale, *scales):
        safe = _at(weight, larger, grid, inputs)
        found = inputs.loss(safe * larger[..., None] - weight)
        takes = _sum(found, grid.shared) < _sum(loss, grid.shared)
        takes = takes if grid.shared or larger is grid.scale else takes & unsafe
        codes, scale = np.where(takes[..., None], safe, codes), np.where(takes, larger, scale)
        loss = np.where(takes, found, loss)
    totals = (float(part.sum(dtype=np.float64)) for part in (before, loss, inputs.loss(weight)))
    return SafeRounding(codes, scale, *totals)


def _sum(losses: F32, shared: tuple[int, ...]) -> F32:
    """Of the rows that share a scale, in the shape of all."""
    return np.broadcast_to(losses.sum(shared, keepdims=True), losses.shape) if shared else losses


def _at(weight: F32, scale: F32, grid: WeightGrid, inputs: Inputs) -> F32:
    """Codes (G, R, K) at these scales: nearest ones, and in rows where these are unsafe the best that are safe."""
    codes = nearest(weight, scale, grid.low, grid.high)
    low, high = (np.broadcast_to(np.asarray(b, np.float32), (*scale.shape, 1)) for b in (grid.low, grid.high))
    groups, rows = np.nonzero(unsafe_pairs(codes).any(-1))
    step = max(1, BUDGET // weight.shape[-1])
    for first in range(0, len(groups), step):
        part = slice(first, first + step)
        at = groups[part], rows[part]
        bounds = scale[at], low[at], high[at]
        start = nearest(weight[at], *bounds, safe_pairs=True)
        codes[at] = _descend(start, weight[at], *bounds, inputs.mean[at[0]], inputs.variance[at[0]])
    return codes


def _loss(error: F32, mean: F32, variance: F32) -> F32:
    shift = np.einsum("...k,...k->...", error, np.broadcast_to(mean, error.shape))
    spread = np.einsum("...k,...k->...", np.square(error), np.broadcast_to(variance, error.shape))
    return np.asarray(spread + np.square(shift), np.float32)


def _descend(codes: F32, weight: F32, scale: F32, low: F32, high: F32, mean: F32, variance: F32) -> F32:
    """Each column in turn set to its best safe code; inside, columns come first: each is one piece of memory."""
    c, w, mu, var = (np.ascontiguousarray(a.T) for a in (codes, weight, mean, variance))
    low, high = low[:, 0], high[:, 0]
    shift = (mu * (c * scale - w)).sum(0)
    curvature = (var + np.square(mu)) * scale
    inputs = len(c)
    for _ in range(SWEEPS):
        for j in range(inputs):
            half = var[j] * (c[j] * scale - w[j]) + mu[j] * shift
            best = np.clip(np.rint(c[j] - half / curvature[j]), low, high)
            if (partner := j ^ 1) < inputs:
                np.clip(best, -LIMIT - c[partner], LIMIT - c[partner], out=best)
            shift += mu[j] * (best - c[j]) * scale
            c[j] = best
    return np.ascontiguousarray(c.T)
