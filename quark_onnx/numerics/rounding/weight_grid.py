"""The weight grid: codes, and which rows share a scale.

Weights (G, R, K), scales (G, R), codes as float32 whole numbers of w/s (the zero point is 0, or taken off the bounds).
Bounds low, high: numbers, or arrays that broadcast to (G, R, 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

Bound = float | F32

PER_CHANNEL: tuple[int, ...] = ()
PER_TENSOR: tuple[int, ...] = (0, 1)
PER_ROW: tuple[int, ...] = (0,)
"""Axes of (G, R) that share one scale. PER_ROW: per-channel weights of a grouped ConvTranspose, (C, R, …)."""


@dataclass(frozen=True, eq=False)
class WeightGrid:
    """The quantizer of the weight. scale (G, R); low, high: codes less the zero point, numbers or (G, R, 1);
    shared: the axes of (G, R) along which the scale is one (`PER_CHANNEL`, `PER_TENSOR`, `PER_ROW`)."""

    scale: F32
    low: Bound
    high: Bound
    shared: tuple[int, ...] = PER_TENSOR


def nearest(weight: F32, scale: F32, low: Bound, high: Bound) -> F32:
    """Codes by rounding half to even."""
    return clip(np.rint(weight / scale[..., None]), low, high)


def clip(codes: F32, low: Bound, high: Bound) -> F32:
    """Codes within the bounds, float32."""
    return np.asarray(np.clip(codes, low, high), np.float32)


def up_or_down(weight: F32, scale: F32, low: Bound, high: Bound) -> tuple[F32, F32]:
    """The two codes next to each weight, within the bounds."""
    down = np.floor(weight / scale[..., None])
    return clip(down, low, high), clip(down + 1, low, high)
