"""Weights that are trained, in distances of two codes, and the codes that stand for them.

    straight through   u = v · s₀ / s,  q = clamp(round(u)),  ŵ = q · s
                       ∂L/∂v = s₀ · ∂L/∂ŵ inside the grid, 0 outside;  ∂L/∂s = Σ ∂L/∂ŵ · (q − u inside, q outside)
    soft rounding      q = q₀ + d · h(v),  h = clamp(1.2 · sigmoid(v) − 0.1, 0, 1)     (AdaRound, Nagel et al. 2020)
                       q₀ the plan's code, d = ±1 towards the float weight; at the end h is 0 or 1

q is less the zero point. A weight that the plan has codes of begins in the middle of them, and one that is rounded to
nearest where it was: what was tuned beforehand is not undone by the first step of weights beside a threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.number_formats import Format
from quark_onnx.numerics.quantizer import along

Array = NDArray[Any]

Rounding = Callable[[Array], Array]
"""From real codes within the grid to whole ones, less the zero point."""

STRETCH, MARGIN = 1.2, 0.1
"""Of the soft rounding h, so that it reaches 0 and 1."""

FIRST = 0.05
"""h at the start: almost the plan's code."""

BETA = (20.0, 2.0)
"""The exponent of the regularizer goes from the first to the second."""

PULL = 0.05
"""Weight of the regularizer, in root mean squares of the gradient of h."""

FREE = 0.2
"""Part of the training in which nothing pulls h to 0 or 1."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the codes of a weight are.

    shape   of the weight
    low, high  the lowest and highest code less the zero point, in a shape that broadcasts over the weight
    """

    shape: tuple[int, ...]
    format: Format
    low: Array
    high: Array

    @classmethod
    def of(cls, shape: tuple[int, ...], format: Format, zero_point: Array) -> Grid:
        """The grid of a format around a zero point in the shape of the plan's."""
        zero = along(np.asarray(zero_point, np.float32), shape, format)
        return cls(shape, format, np.float32(format.lo) - zero, np.float32(format.hi) - zero)

    def spread(self, scale: Array) -> Array:
        """Scales, or what belongs to one each, over the weight."""
        return along(scale, self.shape, self.format)

    def gathered(self, each: Array, like: Array) -> Array:
        """Sums of what there is for every weight, for each scale, float64."""
        if like.ndim == 0:
            return np.asarray(each.sum(dtype=np.float64))
        axis = self.format.axis or 0
        if self.format.block:
            starts = np.arange(0, each.shape[axis], self.format.block)
            return np.asarray(np.add.reduceat(each.astype(np.float64), starts, axis=axis))
        return np.asarray(each.sum(axis=tuple(i for i in range(each.ndim) if i != axis), dtype=np.float64))


class LatentWeight(Protocol):
    """What the trained variable of a weight stands for. `stretch` is s / s₀, over the weight."""

    @property
    def unit(self) -> float:
        """How far a step at learning rate 1 moves the variable."""

    def start(self) -> Array:
        """The variable that stands for the plan's codes."""

    def codes(self, v: Array, stretch: Array, final: bool) -> Array:
        """Codes less the zero point, float32: whole numbers, or while it is trained, what stands for them."""

    def gradients(self, v: Array, stretch: Array, slope: Array, progress: float) -> tuple[Array, Array]:
        """Of the variable, and for each weight its part in ∂L/∂s.

        Args:
            slope: ∂L/∂ŵ · s.
            progress: how much of the training is over, 0 … 1.
        """


@dataclass(frozen=True, eq=False)
class StraightThrough:
    """first: (v) where it begins, in steps of s₀."""

    grid: Grid
    first: Array
    rounded: Rounding

    @property
    def unit(self) -> float:
        """The root mean square of the weight."""
        return float(np.sqrt(np.mean(np.square(self.first, dtype=np.float64)))) or 1.0

    def start(self) -> Array:
        return self.first

    def codes(self, v: Array, stretch: Array, final: bool) -> Array:
        found: Array = self.rounded(np.clip(v / stretch, self.grid.low, self.grid.high))
        return found

    def gradients(self, v: Array, stretch: Array, slope: Array, progress: float) -> tuple[Array, Array]:
        u = v / stretch
        inside: Array = (u >= self.grid.low) & (u <= self.grid.high)
        codes = self.codes(v, stretch, final=False)
        return slope / stretch * inside, slope * (codes - u * inside)


@dataclass(frozen=True, eq=False)
class Soft:
    """base: (q₀) the plan's codes; towards: (d) the other candidate less these."""

    base: Array
    towards: Array
    rounded: Rounding

    unit = 20.0

    def start(self) -> Array:
        return np.full(self.base.shape, -np.log(STRETCH / (FIRST + MARGIN) - 1), np.float32)

    def codes(self, v: Array, stretch: Array, final: bool) -> Array:
        h = v >= 0 if final else _soft(v)[0]
        found: Array = self.base + self.towards * h
        return self.rounded(found) if final else found

    def gradients(self, v: Array, stretch: Array, slope: Array, progress: float) -> tuple[Array, Array]:
        h, steepness = _soft(v)
        of_h = slope * self.towards
        if progress > FREE:
            share = (progress - FREE) / (1 - FREE)
            beta = BETA[1] + (BETA[0] - BETA[1]) * 0.5 * (1 + np.cos(np.pi * share))
            d = 2 * h - 1
            size = PULL * (1 + 20 * share) * float(np.sqrt(np.mean(np.square(of_h, dtype=np.float64))))
            of_h = of_h - np.float32(size * 2 * beta) * np.sign(d) * np.abs(d) ** np.float32(beta - 1)
        return of_h * steepness, slope * (self.base + self.towards * h)


def soft(grid: Grid, base: Array, real: Array, rounded: Rounding) -> Soft:
    """Between a weight's codes and those beside them, on the side of its real ones."""
    towards = np.where(real < base, np.float32(-1), np.float32(1))
    outside = (base + towards < grid.low) | (base + towards > grid.high)
    return Soft(base, np.where(outside, -towards, towards), rounded)


def _soft(v: Array) -> tuple[Array, Array]:
    """h and its derivative."""
    sigmoid = 1 / (1 + np.exp(-v))
    h: Array = STRETCH * sigmoid - MARGIN
    slope: Array = STRETCH * sigmoid * (1 - sigmoid) * ((h > 0) & (h < 1))
    return np.clip(h, 0, 1), slope
