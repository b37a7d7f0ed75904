"""How far quantized arrays are from float ones: `Sqnr`, and in `Agreement` all metrics that mixed precision offers.

sqnr    10 · log10(Σ x² / Σ (x − y)²)
psnr    10 · log10(peak² / mean (x − y)²),  peak = max(largest x − smallest x, largest |x|)
cosine  Σ xy / √(Σ x² · Σ y²)
l2      mean over arrays of √Σ (x − y)²
kl      mean over rows of Σ p · log(p / q), rows along the last axis, p and q the distributions of x and y
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WORST = {"sqnr": -math.inf, "psnr": -math.inf, "cosine": -1.0, "l2": math.inf, "kl": math.inf}
"""By metric, the value of outputs where one is finite and the other is not."""

TINY = 1e-12


class Sqnr:
    """Signal to quantization noise ratio, summed over as many arrays as are added: 10·log10(Σ x² / Σ (x − y)²)."""

    def __init__(self) -> None:
        self.signal = 0.0
        self.noise = 0.0

    def add(self, reference: NDArray[np.generic], other: NDArray[np.generic]) -> None:
        """Count one pair of arrays of equal shape. Positions where both are the same non-finite value are skipped."""
        x, y = reference.astype(np.float64), other.astype(np.float64)
        finite = np.isfinite(x) & np.isfinite(y)
        if not finite.all():
            if np.any(~finite & ~((x == y) | (np.isnan(x) & np.isnan(y)))):
                self.noise = math.inf
            x, y = x[finite], y[finite]
        self.signal += float(np.square(x).sum())
        self.noise += float(np.square(x - y).sum())

    @property
    def db(self) -> float:
        """The ratio in dB; inf when there is no noise, −inf when there is noise and no signal."""
        if self.noise == 0:
            return math.inf
        if self.signal == 0 or math.isinf(self.noise):
            return -math.inf
        return 10 * math.log10(self.signal / self.noise)


@dataclass
class Agreement:
    """Sums over as many pairs of arrays as are added, one pair per sample; `value` is the metric of all."""

    metric: str
    arrays: int = 0
    count: int = 0
    xx: float = 0.0
    yy: float = 0.0
    xy: float = 0.0
    noise: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    distances: float = 0.0
    divergence: float = 0.0
    rows: int = 0
    broken: bool = False

    def add(self, reference: NDArray[Any], other: NDArray[Any]) -> None:
        """Count one pair of equal shape. Positions where both are the same non-finite value are skipped."""
        x, y = reference.astype(np.float64), other.astype(np.float64)
        finite = np.isfinite(x) & np.isfinite(y)
        if not finite.all():
            self.broken |= not np.array_equal(x[~finite], y[~finite], equal_nan=True)
            x, y = np.where(finite, x, 0.0), np.where(finite, y, 0.0)
        noise = float(np.square(x - y).sum())
        self.arrays, self.count = self.arrays + 1, self.count + x.size
        self.xx, self.yy, self.xy = (s + float((a * b).sum()) for s, a, b in self._products(x, y))
        self.noise, self.distances = self.noise + noise, self.distances + math.sqrt(noise)
        self.low, self.high = float(x.min(initial=self.low)), float(x.max(initial=self.high))
        if self.metric == "kl" and x.size:
            found = divergences(x, y)
            self.divergence, self.rows = self.divergence + float(found.sum()), self.rows + found.size

    def _products(self, x: Floats, y: Floats) -> tuple[tuple[float, Floats, Floats], ...]:
        return (self.xx, x, x), (self.yy, y, y), (self.xy, x, y)

    @property
    def value(self) -> float:
        """The metric; the best value it has where there is no difference."""
        if self.broken:
            return WORST[self.metric]
        if self.metric == "l2":
            return self.distances / max(self.arrays, 1)
        if self.metric == "kl":
            return self.divergence / max(self.rows, 1)
        if self.metric == "cosine":
            power = math.sqrt(self.xx * self.yy)
            return 1.0 if self.noise == 0 else self.xy / power if power else 0.0
        peak = max(self.high - self.low, abs(self.high), abs(self.low))
        signal = self.xx if self.metric == "sqnr" else peak**2 * self.count
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(signal / self.noise) if signal else -math.inf


def divergences(x: Floats, y: Floats) -> Floats:
    """(rows,) Kullback-Leibler divergence of each row of y from that of x, along the last axis.

    Where the rows of x are distributions already (no negative value, sums of 1) both are taken as such; else both are
    logits.
    """
    a, b = (np.atleast_2d(v).reshape(-1, v.shape[-1] if v.ndim else 1) for v in (x, y))
    if (a >= 0).all() and np.allclose(a.sum(-1), 1, atol=1e-3):
        log_p, log_q = (np.log(np.maximum(v, TINY)) for v in (a, b))
    else:
        log_p, log_q = (_log_softmax(v) for v in (a, b))
    return np.asarray((np.exp(log_p) * (log_p - log_q)).sum(-1))


def _log_softmax(rows: Floats) -> Floats:
    shifted = rows - rows.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))
