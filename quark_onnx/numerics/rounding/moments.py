"""Second moments of a linear layer: float output y against what the quantized layer reads, z.

    YY = Σ y²,  YZ = Σ y [z,1]ᵀ,  ZZ = Σ [z,1][z,1]ᵀ,     Σ (y − v[z,1])² = v ZZ vᵀ − 2 v YZᵀ + YY

Everything an optimizer of the layer's weight and bias needs, in a size that does not depend on the data: a step on it
is one product of small matrices. The target is asymmetric (float y, quantized z), as AdaRound's paper asks
(Nagel et al. 2020, arXiv 2004.10568, §3.4).

Layout everywhere: G groups (1 when dense, C when depthwise), R output rows per group, K inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.matrix_products import gram, product

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

INACTIVE = np.float32(1e-3)
"""Weight of a position that the activation function blocks: a row with no other still has a bias."""


@dataclass(frozen=True, eq=False)
class Moments:
    """yy (G, R), yz (G, R, K+1), zz (G, K+1, K+1): sums over positions in float64.

    Law: of(a ++ b) == of(a) + of(b) up to the rounding of `gram` (128 · 2⁻²⁴ of Σ|y||z|), and `+` in a fixed order is
    exact to the bit. Units: y and z as the layer has them; all sums are over weighted positions.
    """

    yy: F64
    yz: F64
    zz: F64

    @classmethod
    def of(cls, y: F32, z: F32, weights: F32 | None = None) -> Moments:
        """y (G, n, R), z (G, n, K), weights (G, n) ≥ 0: how much each position counts; None: 1."""
        z1 = np.concatenate([z, np.ones((*z.shape[:2], 1), np.float32)], -1)
        if weights is None:
            return cls(np.square(y).sum(1, dtype=np.float64), gram(y, z1), gram(z1, z1, symmetric=True))
        weighed = z1 * weights[..., None]
        squares = (np.square(y) * weights[..., None]).sum(1, dtype=np.float64)
        return cls(np.asarray(squares), gram(y, weighed), gram(weighed, z1, symmetric=True))

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.yy + other.yy, self.yz + other.yz, self.zz + other.zz)

    @property
    def count(self) -> F64:
        """(G, 1) positions seen, or the sum of their weights."""
        return self.zz[:, -1, -1:]

    @property
    def finite(self) -> bool:
        """Whether there was no NaN, infinity or overflow."""
        return bool(np.isfinite(self.yy).all() and np.isfinite(self.yz).all() and np.isfinite(self.zz).all())

    @property
    def mean_y(self) -> F64:
        """(G, R)."""
        return self.yz[..., -1] / self.count

    @property
    def mean_z(self) -> F64:
        """(G, K)."""
        return self.zz[:, :-1, -1] / self.count

    def loss(self, v: F32 | F64) -> F64:
        """(G, R): Σ (y − v[z,1])² of v = [weight, bias], (G, R, K+1); not divided by the count."""
        exact = v.astype(np.float64)
        return np.asarray(((product(exact, self.zz) - 2 * self.yz) * exact).sum(-1) + self.yy)

    def grad(self, v: F32 | F64) -> F64:
        """(G, R, K+1): the derivative of `loss`."""
        return 2 * (product(v.astype(np.float64), self.zz) - self.yz)

    def bias(self, weight: F32) -> F64:
        """(G, R): the best bias of a weight (G, R, K), mean(y − weight z). Needs a count > 0."""
        fitted: F64 = np.einsum("grk,gk->gr", weight, self.mean_z)
        return self.mean_y - fitted

    def means(self) -> tuple[F32, F32]:
        """(G, R) y and (G, R, K) z: bias(weight) = y − Σ weight z."""
        wide = np.broadcast_to(self.mean_z[:, None].astype(np.float32), (*self.yy.shape, self.zz.shape[-1] - 1))
        return self.mean_y.astype(np.float32), wide


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
