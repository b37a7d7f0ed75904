"""The weight grid: codes, and which rows share a scale.

Weights (G, R, K), scales (G, R), codes as float32 whole numbers of w/s (the zero point is 0, or taken off the bounds).
Bounds low, high: numbers, or arrays that broadcast to (G, R, 1). Where blocks of inputs have scales of their own, these
and the bounds are (G, R, K), the same all over a block; `each` makes the two alike. With a safe run, pairs of
neighbours inside every run of so many columns must not saturate: see `numerics.weight_pairs`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.weight_pairs import project, repair

F32 = NDArray[np.float32]

Bound = float | F32

Number = TypeVar("Number", bound=np.generic)

PER_CHANNEL: tuple[int, ...] = ()
PER_TENSOR: tuple[int, ...] = (0, 1)
PER_ROW: tuple[int, ...] = (0,)
"""Axes of (G, R) that share one scale. PER_ROW: per-channel weights of a grouped ConvTranspose, (C, R, …)."""


@dataclass(frozen=True, eq=False)
class WeightGrid:
    """The quantizer of the weight. scale (G, R); low, high: codes less the zero point, numbers or (G, R, 1);
    shared: the axes of (G, R) along which the scale is one (`PER_CHANNEL`, `PER_TENSOR`, `PER_ROW`);
    safe_run: inside every run of so many columns, pairs of neighbours must not saturate; 0: they may;
    block: so many neighbours along K have one scale, which is (G, R, K) then, as bounds may be; None: all of a row."""

    scale: F32
    low: Bound
    high: Bound
    shared: tuple[int, ...] = PER_TENSOR
    safe_run: int = 0
    block: int | None = None

    def rows(self, part: slice) -> WeightGrid:
        """The same for some of the rows."""
        low, high = self.bounds()
        return replace(self, scale=self.scale[:, part], low=low[:, part], high=high[:, part])

    def at(self, scale: F32) -> WeightGrid:
        """The same with other scales, of the shape of those before."""
        return replace(self, scale=scale)

    def bounds(self) -> tuple[F32, F32]:
        """Low and high, (G, R, 1) or (G, R, K)."""
        return self._by_row(self.low), self._by_row(self.high)

    def _by_row(self, bound: Bound) -> F32:
        array = np.atleast_1d(np.asarray(bound, np.float32))
        return np.broadcast_to(array, (*self.scale.shape[:2], array.shape[-1]))


def each(scale: NDArray[Number]) -> NDArray[Number]:
    """Of a scale per row, (G, R), or whatever else is one per row: (G, R, 1); as it is where blocks have their own."""
    return scale if scale.ndim == 3 else scale[..., None]


def nearest(weight: F32, scale: F32, low: Bound, high: Bound, safe_run: int = 0) -> F32:
    """Codes by rounding half to even."""
    u = steps(weight, scale, low, high, safe_run)
    codes = clip(np.rint(u), low, high)
    return repair(codes, u, safe_run) if safe_run else codes


def steps(weight: F32, scale: F32, low: Bound, high: Bound, safe_run: int = 0) -> F32:
    """The weights in steps of the scale; with a safe run the nearest real codes that have them."""
    u = weight / each(scale)
    return project(clip(u, low, high), safe_run) if safe_run else u


def clip(codes: F32, low: Bound, high: Bound) -> F32:
    """Codes within the bounds, float32."""
    return np.asarray(np.clip(codes, low, high), np.float32)


def up_or_down(weight: F32, scale: F32, low: Bound, high: Bound, safe_run: int = 0) -> tuple[F32, F32]:
    """The two codes next to each weight, within the bounds; of a pair, the two nearer to 0 are safe."""
    down = np.floor(steps(weight, scale, low, high, safe_run))
    return clip(down, low, high), clip(down + 1, low, high)
