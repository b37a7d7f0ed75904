"""Learned step size quantization: a quantizer that is differentiated straight through its rounding.

    v̂ = s · rint(clip(v / s, lo − z, hi − z))          lo − z and hi − z are integers: as `quantizer.quantize`

                 v/s inside      below      above
    ∂v̂/∂v        1               0          0
    ∂v̂/∂s        v̂/s − v/s       lo − z     hi − z      Esser et al. 2020, arXiv 1902.08153, equation 3
    ∂v̂/∂z        0               −s         −s

With β = −z·s that is LSQ+ (Bhalgat et al. 2020, arXiv 2004.09576, section 3.1): ∂v̂/∂β is 0 inside and 1 outside.
Where the zero point stays, the scale is learned as its logarithm, which keeps it positive and makes a step a part of
the range: ∂v̂/∂ln s = v̂ − [inside] · v in all three columns. Otherwise the two ends of the range are learned, as AIMET
does, so that what is clipped at one end does not move the other.

LSQ multiplies the gradient of a scale by 1/√(N·Qp), N values on Qp positive codes, so that a step moves it by as large
a part as it moves a weight. Adam's steps do not depend on the size of a gradient, and so not on N; what is left of the
factor is `balance`, in the rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.quantizer import SMALLEST_SCALE
from quark_onnx.numerics.rounding.adam import Adam

F32 = NDArray[np.float32]

NARROWEST = 1e-6
"""The upper end of a learned range is at least this part of the width that the range had."""

GROWTH = 40.0
"""Bound of the logarithm by which a scale grows or shrinks: e⁴⁰ is more than any range is off, and no overflow."""

STEEPEST = 1e15
"""Bound of a gradient: Adam squares it, in float32, and its steps do not depend on how large it is."""


class Slopes(NamedTuple):
    """Elementwise products of an upstream gradient with ∂v̂/∂v and ∂v̂/∂ln s; the shape of v."""

    value: F32
    log_scale: F32


@dataclass(frozen=True, eq=False)
class Fake:
    """Values and what the quantizer makes of them, of the shape of v; scale broadcasts to it."""

    v: F32
    quantized: F32
    inside: NDArray[np.bool_]
    scale: F32

    def slopes(self, upstream: F32) -> Slopes:
        """The gradient of a loss by v and ln s, not yet summed over what shares a scale; upstream: ∂loss/∂v̂."""
        passed = upstream * self.inside
        return Slopes(passed, upstream * self.quantized - passed * self.v)

    def sums(self, upstream: F32) -> tuple[F32, float, float]:
        """The gradient by v, and those by ln s and by z summed over everything: for one scale."""
        slopes = self.slopes(upstream)
        by_zero = (slopes.value.sum() - upstream.sum()) * self.scale
        return slopes.value, float(slopes.log_scale.sum()), float(by_zero)


def fake(v: F32, scale: F32 | np.float32, low: F32 | float, high: F32 | float) -> Fake:
    """Quantize and dequantize.

    Args:
        scale: > 0, broadcasts to v.
        low, high: whole numbers, the ends of the grid less the zero point.
    """
    steps = v / scale
    quantized = np.clip(steps, np.asarray(low, np.float32), np.asarray(high, np.float32))  # numpy 1: ±65,535 is float64
    inside = quantized == steps
    np.rint(quantized, out=quantized)
    quantized *= scale
    return Fake(v, quantized, inside, np.asarray(scale, np.float32))


def balance(high: float) -> float:
    """Rate of ln s for a rate of one code for the values: 1/√Qp (Esser et al. 2020, section 2.2)."""
    return 1 / math.sqrt(max(high, 1.0))


@dataclass(frozen=True)
class Quantizer:
    """One scale and zero point. low, high: first and last code; zero is a whole number between them."""

    scale: float
    zero: int
    low: int
    high: int

    def __call__(self, v: F32) -> Fake:
        return fake(v, np.float32(self.scale), self.low - self.zero, self.high - self.zero)


def normal(scale: NDArray[np.floating] | float) -> F32:
    """Scales as float32 that are positive, normal and finite."""
    return np.asarray(np.clip(scale, SMALLEST_SCALE, np.finfo(np.float32).max), np.float32)


class Variable:
    """What is learned with Adam at a rate of its own; `value` changes in place."""

    def __init__(self, start: NDArray[np.floating], rate: float) -> None:
        self.value: F32 = np.array(start, np.float32)
        self.rate, self.adam = rate, Adam.of(self.value.shape)

    def step(self, grad: F32, share: float) -> None:
        """One step at a share of the rate; uses grad up."""
        self.adam.step(self.value, grad, self.rate * share)


def by_ends(low: float, high: float, codes: int, by_log_scale: float, by_zero: float) -> tuple[float, float]:
    """The gradient by the two ends of a range from those by ln s and by z, for a grid of codes + 1 numbers.

    s = (high − low) / codes,   z = lo − low / s
    """
    width = high - low
    slope, turn = by_log_scale / width, by_zero * codes / width**2
    return -slope - turn * high, slope + turn * low


class LearnedRange:
    """The range of a quantizer while it is learned.

    both  the two ends, as parts of the width at the start; else the zero point stays, and ln (s / s at the start)
    rate  parts of the width per step
    """

    def __init__(self, start: Quantizer, both: bool, rate: float) -> None:
        self.start, self.both = start, both
        self.codes = start.high - start.low
        ends = ((start.low - start.zero) / self.codes, (start.high - start.zero) / self.codes)
        self._x = Variable(np.array(ends if both else [0.0]), rate)

    def quantizer(self) -> Quantizer:
        """With a normal float32 scale, and a zero point that is a code."""
        start, x = self.start, [float(v) for v in self._x.value]
        scale = float(normal(start.scale * (x[1] - x[0] if self.both else math.exp(x[0]))))
        if not self.both:
            return replace(start, scale=scale)
        zero = start.low - round(x[0] / (x[1] - x[0]) * self.codes)
        return replace(start, scale=scale, zero=min(max(zero, start.low), start.high))

    def step(self, by_log_scale: float, by_zero: float, share: float) -> None:
        """One step from the gradients by ln s and by z. The range keeps 0 inside."""
        grad: tuple[float, ...] = (by_log_scale,)
        if self.both:
            low, high = (float(v) for v in self._x.value)
            grad = by_ends(low, high, self.codes, by_log_scale, by_zero)
        self._x.step(np.clip(np.array(grad), -STEEPEST, STEEPEST).astype(np.float32), share)
        bounds = ([-GROWTH, NARROWEST], [0, GROWTH]) if self.both else (-GROWTH, GROWTH)
        np.clip(self._x.value, *bounds, out=self._x.value)
