"""How far quantized arrays are from float ones: `Sqnr`, and in `Agreement` the other metrics of mixed precision.

sqnr    10 · log10(Σ x² / Σ (x − y)²)
psnr    10 · log10(peak² / mean (x − y)²),  peak = max(largest x − smallest x, largest |x|)
cosine  Σ xy / √(Σ x² · Σ y²)
l2      mean over arrays of √Σ (x − y)²
kl      mean over rows of Σ p · log(p / q), rows along the last axis, p and q the distributions of x and y
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WORST = {"psnr": -math.inf, "cosine": -1.0, "l2": math.inf, "kl": math.inf}
"""By metric, the value of outputs where one is finite and the other is not."""

TINY = 1e-12

AT_ONCE = 1 << 16
"""Values whose logarithms are taken at a time: they fit into a processor's cache."""


@dataclass
class Sqnr:
    """Signal to quantization noise ratio, summed over as many arrays as are added: 10·log10(Σ x² / Σ (x − y)²)."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, reference: NDArray[Any], other: NDArray[Any]) -> None:
        """Count one pair of arrays of equal shape. Positions where both are the same non-finite value are skipped."""
        self.count(*finite(reference, other))

    def count(self, x: Floats, y: Floats, broken: bool) -> None:
        """Count what `finite` made of a pair."""
        self.noise = math.inf if broken else self.noise
        self.signal += float(np.square(x).sum())
        self.noise += float(np.square(x - y).sum())

    @property
    def db(self) -> float:
        """The ratio in dB; inf when there is no noise, −inf when there is noise and no signal."""
        return decibels(self.signal, self.noise)


def finite(reference: NDArray[Any], other: NDArray[Any]) -> tuple[Floats, Floats, bool]:
    """Both arrays with zeros where one is not finite, and whether the other one differs there."""
    x, y = reference.astype(np.float64), other.astype(np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    if known.all():
        return x, y, False
    broken = not np.array_equal(x[~known], y[~known], equal_nan=True)
    return np.where(known, x, 0.0), np.where(known, y, 0.0), broken


def decibels(signal: float, noise: float) -> float:
    """10·log10(signal / noise); inf when there is no noise, −inf when there is noise and no signal, or no end of it."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal and math.isfinite(noise) else -math.inf


@dataclass
class Agreement:
    """Sums over as many pairs of arrays as are added, one pair per sample; `value` is the metric of all."""

    metric: str
    ratio: Sqnr = field(default_factory=Sqnr)
    arrays: int = 0
    count: int = 0
    yy: float = 0.0
    xy: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    distances: float = 0.0
    divergence: float = 0.0
    rows: int = 0

    def add(self, reference: NDArray[Any], other: NDArray[Any]) -> None:
        """Count one pair of equal shape. Positions where both are the same non-finite value are skipped."""
        x, y, broken = finite(reference, other)
        self.ratio.count(x, y, broken)
        self.arrays, self.count = self.arrays + 1, self.count + x.size
        self.yy, self.xy = self.yy + float(np.square(y).sum()), self.xy + float((x * y).sum())
        self.distances += math.sqrt(float(np.square(x - y).sum()))
        self.low, self.high = float(x.min(initial=self.low)), float(x.max(initial=self.high))
        if self.metric == "kl" and x.size:
            found = divergences(x, y)
            self.divergence, self.rows = self.divergence + float(found.sum()), self.rows + found.size

    @property
    def value(self) -> float:
        """The metric; the best value it has where there is no difference."""
        signal, noise = self.ratio.signal, self.ratio.noise
        if math.isinf(noise):
            return WORST[self.metric]
        if self.metric == "l2":
            return self.distances / max(self.arrays, 1)
        if self.metric == "kl":
            return self.divergence / max(self.rows, 1)
        if self.metric == "cosine":
            power = math.sqrt(signal * self.yy)
            return 1.0 if noise == 0 else self.xy / power if power else 0.0
        peak = max(self.high - self.low, abs(self.high), abs(self.low))
        return decibels(peak**2 * self.count, noise)


def divergences(x: NDArray[Any], y: NDArray[Any], axis: int = -1) -> Floats:
    """(rows,) Kullback-Leibler divergence of each row of y from that of x, rows along an axis.

    Where the rows of x are distributions already (no negative value, sums of 1) both are taken as such; else both are
    logits.
    """
    known = are_distributions(x, axis)
    found = [divergence(p, q, known=known) for p, q in row_blocks(x, y, axis)]
    return np.concatenate(found) if found else np.empty(0)


def row_blocks(x: NDArray[Any], y: NDArray[Any], axis: int) -> Iterator[tuple[Floats, Floats]]:
    """Both arrays as blocks (values of a row, some rows): small, so that a large output needs no copies of its size."""
    pairs = [_rows(v, axis) for v in (x, y)]
    step = max(1, AT_ONCE // max(1, pairs[0].shape[1]))
    for p, q in zip(*pairs, strict=True):
        for start in range(0, p.shape[1], step):
            part = slice(start, start + step)
            yield p[:, part].astype(np.float64), q[:, part].astype(np.float64)


def _rows(values: NDArray[Any], axis: int) -> NDArray[Any]:
    """(all axes before, the axis, all behind) without a copy, where that can be."""
    v = np.atleast_1d(values)
    axis %= v.ndim
    if axis == v.ndim - 1:
        return v.reshape(1, -1, v.shape[-1]).swapaxes(1, 2)
    return v.reshape(math.prod(v.shape[:axis]), v.shape[axis], -1)


def are_distributions(values: NDArray[Any], axis: int = -1) -> bool:
    """Whether all vectors along an axis are distributions: no negative value, sums of 1."""
    if not values.ndim or not (values >= 0).all():
        return False
    return bool(np.allclose(values.sum(axis, dtype=np.float64), 1, atol=1e-3))


def divergence(p: Floats, q: Floats, *, known: bool) -> Floats:
    """(rows,) Of blocks as `row_blocks` makes them; sums of quantized distributions, near 1 only, are taken out."""
    if known:
        shares, others = (v / v.sum(0) for v in (np.maximum(p, TINY), np.maximum(q, TINY)))
        return np.asarray((shares * np.log(shares / others)).sum(0))
    p, q = p - p.max(0), q - q.max(0)
    shares = np.exp(p)
    total, other = shares.sum(0), np.exp(q).sum(0)
    return np.asarray((shares * (p - q)).sum(0) / total - np.log(total / other))
