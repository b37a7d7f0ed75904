"""The weight grid: codes, and which rows share a scale.

Weights (G, R, K), scales (G, R), codes as float32 whole numbers of w/s (the zero point is 0, or taken off the bounds).
Bounds low, high: numbers, or arrays that broadcast to (G, R, 1). With safe pairs, neighbours along K bound each other:
see `numerics.weight_pairs`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.weight_pairs import project, repair

F32 = NDArray[np.float32]

Bound = float | F32

PER_CHANNEL: tuple[int, ...] = ()
PER_TENSOR: tuple[int, ...] = (0, 1)
PER_ROW: tuple[int, ...] = (0,)
"""Axes of (G, R) that share one scale. PER_ROW: per-channel weights of a grouped ConvTranspose, (C, R, …)."""

COARSE = 2**8 - 2
"""Steps between the first and the last code of 8 bits, strictly symmetric ones: −127 to 127."""


@dataclass(frozen=True, eq=False)
class WeightGrid:
    """The quantizer of the weight. scale (G, R); low, high: codes less the zero point, numbers or (G, R, 1);
    shared: the axes of (G, R) along which the scale is one (`PER_CHANNEL`, `PER_TENSOR`, `PER_ROW`)."""

    scale: F32
    low: Bound
    high: Bound
    shared: tuple[int, ...] = PER_TENSOR
    safe_pairs: bool = False

    def rows(self, part: slice) -> WeightGrid:
        """The same for some of the rows."""
        low, high = (np.broadcast_to(np.asarray(b, np.float32), (*self.scale.shape, 1)) for b in (self.low, self.high))
        return replace(self, scale=self.scale[:, part], low=low[:, part], high=high[:, part])

    def at(self, scale: F32) -> WeightGrid:
        """The same with other scales (G, R)."""
        return replace(self, scale=scale)

    @property
    def coarse(self) -> bool:
        """Whether the codes have fewer than 8 bits."""
        return bool(np.max(np.asarray(self.high) - np.asarray(self.low)) < COARSE)


def nearest(weight: F32, scale: F32, low: Bound, high: Bound, safe_pairs: bool = False) -> F32:
    """Codes by rounding half to even."""
    u = steps(weight, scale, low, high, safe_pairs)
    codes = clip(np.rint(u), low, high)
    return repair(codes, u) if safe_pairs else codes


def steps(weight: F32, scale: F32, low: Bound, high: Bound, safe_pairs: bool = False) -> F32:
    """The weights in steps of the scale; with safe pairs the nearest real codes that have them."""
    u = weight / scale[..., None]
    return project(clip(u, low, high)) if safe_pairs else u


def clip(codes: F32, low: Bound, high: Bound) -> F32:
    """Codes within the bounds, float32."""
    return np.asarray(np.clip(codes, low, high), np.float32)


def up_or_down(weight: F32, scale: F32, low: Bound, high: Bound, safe_pairs: bool = False) -> tuple[F32, F32]:
    """The two codes next to each weight, within the bounds; of a pair, the two nearer to 0 are safe."""
    down = np.floor(steps(weight, scale, low, high, safe_pairs))
    return clip(down, low, high), clip(down + 1, low, high)
