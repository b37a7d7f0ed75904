"""The statistics of one layer's data, and their split into what is learned from and what judges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.rounding.moments import ActiveMeans, Moments, Sums

F32 = NDArray[np.float32]


class Kept(NamedTuple):
    """Positions with their data: y (G, n, R), z (G, n, K)."""

    y: F32
    z: F32


@dataclass(frozen=True, eq=False)
class Part:
    """One side of the split. kept is None when nothing was to be kept, active when the activation blocks nothing; sums
    are `Moments` unless squares were left out.

    Merges like `Moments`; the parts of a layer all have the same fields.
    """

    sums: Sums | Moments
    kept: Kept | None = None
    active: ActiveMeans | None = None

    def __add__(self, other: Part) -> Part:
        kept, active = self.kept, self.active
        if kept and other.kept:
            kept = Kept(*(np.concatenate(pair, 1) for pair in zip(kept, other.kept, strict=True)))
        if active and other.active:
            active = active + other.active
        if isinstance(self.sums, Moments):
            return Part(self.sums + other.moments, kept, active)
        return Part(self.sums + other.linear, kept, active)

    @property
    def moments(self) -> Moments:
        """The sums with their squares."""
        assert isinstance(self.sums, Moments)
        return self.sums

    @property
    def linear(self) -> Sums:
        """The sums without their squares."""
        return self.sums.linear if isinstance(self.sums, Moments) else self.sums

    @property
    def fitter(self) -> Sums | ActiveMeans:
        """What the bias is fitted to."""
        return self.linear if self.active is None else self.active


@dataclass(frozen=True, eq=False)
class LayerData:
    """train: to learn from; held: to judge by, None when there was a single sample."""

    train: Part
    held: Part | None


def held_out(count: int, share: float, seed: int) -> NDArray[np.bool_]:
    """(count,) which samples are held out: the share, but at least one of two or more, and never all."""
    held = np.zeros(count, bool)
    number = min(max(1, round(share * count)), count - 1) if share > 0 else 0
    held[np.random.Generator(np.random.PCG64(seed)).permutation(count)[:number]] = True
    return held
