"""Activation functions of one variable: value, slope, and the interval outside which nothing passes.

`active` is (low, high): the slope is 0 wherever v < low or v > high; ±inf when it is 0 nowhere (or nearly nowhere).
Arrays are (G, n, R): groups, positions, output rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

EVERYWHERE = (-math.inf, math.inf)


@dataclass(frozen=True, eq=False)
class Activation:
    """The identity, and what all others have."""

    @property
    def active(self) -> tuple[float, float]:
        return EVERYWHERE

    def value(self, v: F32) -> F32:
        """f(v), a new array."""
        return v.copy()

    def slope(self, v: F32) -> F32:
        """f′(v); at a kink, one of the two sides."""
        return np.ones_like(v)

    def rows(self, part: slice) -> Activation:
        """The same for some output rows."""
        return self

    def region(self, margin: float) -> tuple[float, float] | None:
        """`active`, wider by `margin` at its finite ends; None when all of it is active.

        The margin is for positions that quantization noise pushes across the kink: a few percent of the output range.
        """
        low, high = self.active
        return None if (low, high) == EVERYWHERE else (low - margin, high + margin)


@dataclass(frozen=True, eq=False)
class Clip(Activation):
    """min(max(v, low), high)."""

    low: float = -math.inf
    high: float = math.inf

    @property
    def active(self) -> tuple[float, float]:
        return self.low, self.high

    def value(self, v: F32) -> F32:
        return np.clip(v, np.float32(self.low), np.float32(self.high))

    def slope(self, v: F32) -> F32:
        return ((v > self.low) & (v < self.high)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Relu(Clip):
    """max(v, 0)."""

    low: float = 0.0


@dataclass(frozen=True, eq=False)
class LeakyRelu(Activation):
    """v, times alpha where v < 0."""

    alpha: float = 0.01

    @property
    def active(self) -> tuple[float, float]:
        return EVERYWHERE if self.alpha else (0.0, math.inf)

    def value(self, v: F32) -> F32:
        return np.multiply(v, self.slope(v))

    def slope(self, v: F32) -> F32:
        return np.where(v > 0, np.float32(1), np.float32(self.alpha))


@dataclass(frozen=True, eq=False)
class PRelu(Activation):
    """v, times a slope per output row where v < 0. alpha: (G, R)."""

    alpha: F32

    def value(self, v: F32) -> F32:
        return np.multiply(v, self.slope(v))

    def slope(self, v: F32) -> F32:
        return np.where(v > 0, np.float32(1), self.alpha[:, None].astype(np.float32))

    def rows(self, part: slice) -> PRelu:
        return PRelu(self.alpha[:, part])


@dataclass(frozen=True, eq=False)
class Sigmoid(Activation):
    """1 / (1 + e⁻ᵛ)."""

    def value(self, v: F32) -> F32:
        return np.asarray(np.float32(0.5) * (np.tanh(np.float32(0.5) * v) + 1))  # unlike e⁻ᵛ, tanh does not overflow

    def slope(self, v: F32) -> F32:
        p = self.value(v)
        return np.multiply(p, 1 - p)


@dataclass(frozen=True, eq=False)
class HardSigmoid(Activation):
    """clip(alpha v + beta, 0, 1), alpha > 0."""

    alpha: float = 0.2
    beta: float = 0.5

    @property
    def active(self) -> tuple[float, float]:
        return -self.beta / self.alpha, (1 - self.beta) / self.alpha

    def value(self, v: F32) -> F32:
        line = np.multiply(v, np.float32(self.alpha)) + np.float32(self.beta)
        return np.clip(line, np.float32(0), np.float32(1))

    def slope(self, v: F32) -> F32:
        low, high = self.active
        return np.where((v > low) & (v < high), np.float32(self.alpha), np.float32(0))


@dataclass(frozen=True, eq=False)
class HardSwish(Activation):
    """v · clip(v/6 + ½, 0, 1)."""

    @property
    def active(self) -> tuple[float, float]:
        return -3.0, math.inf

    def value(self, v: F32) -> F32:
        return v * HardSigmoid(1 / 6).value(v)

    def slope(self, v: F32) -> F32:
        inner = HardSigmoid(1 / 6)
        return inner.value(v) + v * inner.slope(v)


@dataclass(frozen=True, eq=False)
class Tanh(Activation):
    """tanh v."""

    def value(self, v: F32) -> F32:
        return np.tanh(v)

    def slope(self, v: F32) -> F32:
        return 1 - np.square(np.tanh(v))


@dataclass(frozen=True, eq=False)
class Gelu(Activation):
    """v Φ(v); with `tanh`, ½ v (1 + tanh(√(2/π)(v + 0.044715 v³)))."""

    tanh: bool = False

    def value(self, v: F32) -> F32:
        return np.float32(0.5) * v * (1 + self._odd(v))

    def slope(self, v: F32) -> F32:
        if self.tanh:
            inner = np.float32(math.sqrt(2 / math.pi)) * (1 + np.float32(3 * 0.044715) * np.square(v))
            steep = (1 - np.square(self._odd(v))) * inner
        else:
            steep = np.float32(math.sqrt(2 / math.pi)) * np.exp(np.float32(-0.5) * np.square(v))
        return np.asarray(np.float32(0.5) * (1 + self._odd(v) + v * steep))

    def _odd(self, v: F32) -> F32:
        """2Φ(v) − 1, or its tanh form."""
        if self.tanh:
            return np.tanh(np.float32(math.sqrt(2 / math.pi)) * (v + np.float32(0.044715) * v * v * v))
        return erf(v / np.float32(math.sqrt(2)))


def erf(x: F32) -> F32:
    """The error function, off by at most 1.5e-7 and the rounding of float32 (Abramowitz & Stegun 7.1.26)."""
    size = np.abs(x)
    t = 1 / (1 + np.float32(0.3275911) * size)
    series = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(factor)) * t
    return np.copysign(1 - series * np.exp(-np.square(size)), x)
