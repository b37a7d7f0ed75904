"""Second moments of a linear layer: float output y against what the quantized layer reads, z.

    YY = Σ y²,  YZ = Σ y [z,1]ᵀ,  ZZ = Σ [z,1][z,1]ᵀ,     Σ (y − v[z,1])² = v ZZ vᵀ − 2 v YZᵀ + YY

Everything an optimizer of the layer's weight and bias needs, in a size that does not depend on the data: a step on it
is one product of small matrices. The target is asymmetric (float y, quantized z), as AdaRound's paper asks
(Nagel et al. 2020, arXiv 2004.10568, §3.4).

Layout everywhere: G groups (1 when dense, C when depthwise), R output rows per group, K inputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.matrix_products import gram, product

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

M = TypeVar("M", bound="Means")

INACTIVE = np.float32(1e-3)
"""Weight of a position that the activation function blocks: a row with no other still has a bias."""


class Means(ABC):
    """The means of y and z, and what follows from them: the best bias of any weight.

    Law of all that is summed here: of(a ++ b) == of(a) + of(b) up to rounding, and `+` in a fixed order is exact to the
    bit. Units: y and z as the layer has them; all sums are over weighted positions.
    """

    yy: F64

    def __add__(self: M, other: M) -> M:
        return type(self)(**{name: sums + getattr(other, name) for name, sums in vars(self).items()})

    @property
    @abstractmethod
    def count(self) -> F64:
        """(G, 1) positions seen, or the sum of their weights."""

    @property
    @abstractmethod
    def mean_y(self) -> F64:
        """(G, R)."""

    @property
    @abstractmethod
    def mean_z(self) -> F64:
        """(G, K)."""

    @property
    def finite(self) -> bool:
        """Whether there was no NaN, infinity or overflow."""
        return all(bool(np.isfinite(sums).all()) for sums in vars(self).values())

    def bias(self, weight: F32) -> F64:
        """(G, R): the best bias of a weight (G, R, K), mean(y − weight z). Needs a count > 0."""
        fitted: F64 = np.einsum("grk,gk->gr", weight, self.mean_z)
        return self.mean_y - fitted

    def means(self) -> tuple[F32, F32]:
        """(G, R) y and (G, R, K) z: bias(weight) = y − Σ weight z."""
        mean_z = self.mean_z.astype(np.float32)
        return self.mean_y.astype(np.float32), np.broadcast_to(mean_z[:, None], (*self.yy.shape, mean_z.shape[-1]))


@dataclass(frozen=True, eq=False)
class Sums(Means):
    """yy and y (G, R), z1 (G, K+1): what moments need without their squares, which is next to nothing."""

    yy: F64
    y: F64
    z1: F64

    @classmethod
    def of(cls, y: F32, z: F32) -> Sums:
        """y (G, n, R), z (G, n, K)."""
        count = np.full((len(z), 1), float(z.shape[1]))
        z1 = np.concatenate([z.sum(1, dtype=np.float64), count], -1)
        return cls(np.square(y).sum(1, dtype=np.float64), y.sum(1, dtype=np.float64), z1)

    @property
    def count(self) -> F64:
        return self.z1[:, -1:]

    @property
    def mean_y(self) -> F64:
        return np.asarray(self.y / self.count)

    @property
    def mean_z(self) -> F64:
        return np.asarray(self.z1[:, :-1] / self.count)


@dataclass(frozen=True, eq=False)
class Moments(Means):
    """yy (G, R), yz (G, R, K+1), zz (G, K+1, K+1): sums over positions in float64.

    Of n positions they are off by at most (min(n, 2¹²) + 3) · 2⁻²⁴ of Σ|y||z|: the rounding of `gram` and of weights.
    """

    yy: F64
    yz: F64
    zz: F64

    @classmethod
    def of(cls, y: F32, z: F32, weights: F32 | None = None) -> Moments:
        """y (G, n, R), z (G, n, K), weights (G, n) ≥ 0: how much each position counts; None: 1."""
        counted, total, root = (y, z), float(z.shape[1]), z
        if weights is not None:
            w = weights[..., None]
            counted, total = (y * w, z * w), weights.sum(1, dtype=np.float64)
            root = z * np.sqrt(w)  # so that both factors are the same, and half of zz is computed
        groups, _, inputs = z.shape
        yz, zz = np.empty((groups, y.shape[2], inputs + 1)), np.empty((groups, inputs + 1, inputs + 1))
        gram(counted[0], z, yz[..., :-1])
        gram(root, root, zz[:, :-1, :-1])
        yz[..., -1] = counted[0].sum(1, dtype=np.float64)
        zz[:, -1, :-1] = zz[:, :-1, -1] = counted[1].sum(1, dtype=np.float64)
        zz[:, -1, -1] = total
        return cls((counted[0] * y).sum(1, dtype=np.float64), yz, zz)

    @property
    def count(self) -> F64:
        return self.zz[:, -1, -1:]

    @property
    def mean_y(self) -> F64:
        return self.yz[..., -1] / self.count

    @property
    def mean_z(self) -> F64:
        return self.zz[:, :-1, -1] / self.count

    @property
    def linear(self) -> Sums:
        """Those that are no squares."""
        return Sums(self.yy, self.yz[..., -1], self.zz[:, -1])

    def loss(self, v: F32 | F64) -> F64:
        """(G, R): Σ (y − v[z,1])² of v = [weight, bias], (G, R, K+1); not divided by the count."""
        exact = v.astype(np.float64)
        return np.asarray(((product(exact, self.zz) - 2 * self.yz) * exact).sum(-1) + self.yy)

    def grad(self, v: F32 | F64) -> F64:
        """(G, R, K+1): the derivative of `loss`."""
        return 2 * (product(v.astype(np.float64), self.zz) - self.yz)


@dataclass(frozen=True, eq=False)
class ActiveMeans:
    """Sums over the positions where the activation function lets the float target through, each row its own.

    count (G, R), y (G, R), z (G, R, K). Behind a ReLU a bias fitted to all positions serves mostly those that end as 0
    anyway. Law: of(a ++ b) == of(a) + of(b), as in `Moments`.
    """

    count: F64
    y: F64
    z: F64

    @classmethod
    def of(cls, y: F32, z: F32, active: tuple[float, float]) -> ActiveMeans:
        """y (G, n, R), z (G, n, K); active: the open interval of y that counts fully."""
        mask = mask_of(y, active)
        count = mask.sum(1, dtype=np.float64)
        return cls(count, np.asarray((mask * y).sum(1, dtype=np.float64)), gram(mask, z))

    def __add__(self, other: ActiveMeans) -> ActiveMeans:
        return ActiveMeans(self.count + other.count, self.y + other.y, self.z + other.z)

    def bias(self, weight: F32) -> F64:
        """(G, R): mean(y − weight z) over the active positions."""
        fitted: F64 = np.einsum("grk,grk->gr", weight, self.z)
        return (self.y - fitted) / self.count

    def means(self) -> tuple[F32, F32]:
        """(G, R) y and (G, R, K) z: bias(weight) = y − Σ weight z."""
        return (self.y / self.count).astype(np.float32), (self.z / self.count[..., None]).astype(np.float32)


def mask_of(y: F32, active: tuple[float, float]) -> F32:
    """1 where y is in the open interval, `INACTIVE` more everywhere; the shape of y."""
    inside: F32 = ((y > active[0]) & (y < active[1])).astype(np.float32)
    return inside + INACTIVE


def with_bias(weight: F32, bias: F32) -> F32:
    """(G, R, K), (G, R) → (G, R, K+1)."""
    return np.concatenate([weight, bias[..., None]], -1)
