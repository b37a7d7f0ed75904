"""The seam between an optimizer and what it minimizes: the mean over positions of (f(ŷ) − f(y))², row by row.

`Quadratic` knows only moments (f is the identity) and sees all data in every step; `Sampled` keeps positions and sees
f. In either, the bias is one of two:
    eliminated  every candidate weight is judged with the bias that suits it best
    fixed       it stays
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.activation_functions import Activation
from quark_onnx.numerics.matrix_products import product
from quark_onnx.numerics.rounding.moments import Moments

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

DAMPING = 1e-6
"""Part of the mean of diag H that is always added to it: an input that is never seen must not divide by zero."""


class Objective(Protocol):
    """What an optimizer may ask. Weights (G, R, K) in real units; losses (G, R) per position."""

    @property
    def exact(self) -> bool:
        """Whether a call sees all data, so that the losses of different calls compare."""

    def __call__(self, weight: F32) -> tuple[F32, F32]:
        """Loss of every row and gradient (G, R, K); when not `exact`, of the next mini-batch."""

    def loss(self, weight: F32) -> F32:
        """Loss of every row over all data."""

    def rows(self, part: slice) -> Objective:
        """The same for some of the rows."""


@dataclass(frozen=True, eq=False)
class Quadratic:
    """loss(w) = e H eᵀ − 2 e rᵀ + floor,  e = w − origin: float32 around a near point, so that nothing cancels.

    origin (G, R, K); hessian (G, K, K), half the second derivative; residual (G, R, K), half the negative gradient at
    the origin; floor (G, R), the loss there.
    """

    origin: F32
    hessian: F32
    residual: F32
    floor: F32

    exact = True

    @classmethod
    def around(cls, weight: F32, moments: Moments, ridge: float = 0.0, bias: F32 | None = None) -> Quadratic:
        """The loss of weights near `weight` (G, R, K); bias (G, R) when it is fixed, None when it is eliminated.

        ridge adds this part of diag H as a pull toward `weight`: the optimum of few positions fits their noise.
        """
        count = moments.count
        h, c = moments.zz[:, :-1, :-1] / count[..., None], moments.yz[..., :-1] / count[..., None]
        yy, mean_y, mean_z = moments.yy / count, moments.mean_y, moments.mean_z[:, None]
        if bias is None:
            for row, mean in zip(np.swapaxes(h, 0, 1), np.moveaxis(mean_z, -1, 0), strict=True):
                row -= mean * mean_z[:, 0]
            c -= mean_y[..., None] * mean_z
            return cls._around(weight, h, c, yy - mean_y**2, ridge)
        b = bias.astype(np.float64)
        return cls._around(weight, h, c - b[..., None] * mean_z, yy - 2 * b * mean_y + b**2, ridge)

    @classmethod
    def _around(cls, weight: F32, h: F64, c: F64, yy: F64, ridge: float) -> Quadratic:
        """loss(w) = w h wᵀ − 2 w cᵀ + yy; h is used up."""
        w = weight.astype(np.float64)
        wh = product(w, h)
        floor = yy + (w * (wh - 2 * c)).sum(-1)
        diagonal = np.einsum("gkk->gk", h)  # a view
        diagonal += ridge * diagonal + DAMPING * diagonal.mean(-1, keepdims=True) + 1e-30
        return cls(weight, h.astype(np.float32), (c - wh).astype(np.float32), floor.astype(np.float32))

    def __call__(self, weight: F32) -> tuple[F32, F32]:
        e = weight - self.origin
        half = product(e, self.hessian)
        half -= self.residual
        loss = self._loss(e, half)
        half *= 2
        return loss, half

    def loss(self, weight: F32) -> F32:
        e = weight - self.origin
        return self._loss(e, product(e, self.hessian) - self.residual)

    def _loss(self, e: F32, half: F32) -> F32:
        return np.asarray(np.einsum("grk,grk->gr", e, half - self.residual) + self.floor, np.float32)

    def rows(self, part: slice) -> Quadratic:
        """The same for some of the rows."""
        return Quadratic(self.origin[:, part], self.hessian, self.residual[:, part], self.floor[:, part])

    def take(self, rows: NDArray[np.intp]) -> Quadratic:
        """The same for chosen rows, in any order and number."""
        return Quadratic(self.origin[:, rows], self.hessian, self.residual[:, rows], self.floor[:, rows])

    @property
    def importance(self) -> F32:
        """(G, K) what the square of an error of each weight costs by itself."""
        return np.asarray(np.einsum("gkk->gk", self.hessian))

    @property
    def curvature(self) -> F32:
        """(G, 1) mean of diag H: what the square of an average weight's step costs."""
        trace: F32 = np.einsum("gkk->g", self.hessian)[:, None]
        return trace / np.float32(self.hessian.shape[-1])


@dataclass(frozen=True, eq=False)
class Sampled:
    """Kept positions, through the true activation function, in mini-batches.

    y (G, n, R) float target before f; z (G, n, K); bias(weight) = offset − Σ lever · weight, with offset (G, R) and
    lever (G, R, K) from `means()` of the moments (eliminated) or None (fixed). batch: positions per call; seed: of
    their order, which is drawn once.
    """

    y: F32
    z: F32
    offset: F32
    lever: F32 | None
    activation: Activation
    batch: int = 256
    seed: tuple[int, ...] = (0,)
    _rng: np.random.Generator = field(init=False)

    exact = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rng", np.random.Generator(np.random.PCG64(self.seed)))

    def bias(self, weight: F32) -> F32:
        """(G, R)."""
        if self.lever is None:
            return self.offset
        fitted: F32 = np.einsum("grk,grk->gr", weight, self.lever)
        return self.offset - fitted

    def __call__(self, weight: F32) -> tuple[F32, F32]:
        """Loss and gradient on a random mini-batch: a window of the kept positions, which lie in random order."""
        start = int(self._rng.integers(0, max(1, self.y.shape[1] - self.batch + 1)))
        return self.on(weight, slice(start, start + self.batch))

    def on(self, weight: F32, part: slice) -> tuple[F32, F32]:
        """Loss and gradient on some of the positions."""
        z = self.z[:, part]
        out = product(z, np.swapaxes(weight, 1, 2))
        out += self.bias(weight)[:, None]
        error = self.activation.value(out) - self.activation.value(self.y[:, part])
        share = np.float32(1 / z.shape[1])
        loss = np.einsum("gnr,gnr->gr", error, error) * share
        error *= self.activation.slope(out)
        error *= 2 * share
        grad = product(np.swapaxes(error, 1, 2), z)
        if self.lever is not None:
            grad -= error.sum(1)[..., None] * self.lever
        return loss, grad

    @property
    def importance(self) -> F32:
        """(G, K) mean square of every input."""
        return np.asarray(np.square(self.z).mean(1))

    def loss(self, weight: F32, bias: F32 | None = None) -> F32:
        """(G, R) over all positions; bias (G, R) instead of the objective's own, if given."""
        out = product(self.z, np.swapaxes(weight, 1, 2))
        out += (self.bias(weight) if bias is None else bias)[:, None]
        return np.asarray(np.square(self.activation.value(out) - self.activation.value(self.y)).mean(1), np.float32)

    def rows(self, part: slice) -> Sampled:
        """The same for some of the rows, with mini-batches of their own: independent of who else asks."""
        first = part.indices(self.y.shape[2])[0]
        lever = None if self.lever is None else self.lever[:, part]
        return replace(
            self,
            y=self.y[..., part],
            offset=self.offset[:, part],
            lever=lever,
            activation=self.activation.rows(part),
            seed=(*self.seed, first),
        )

    def shuffled(self) -> Sampled:
        """The same with the positions in random order, as mini-batches need it."""
        order = np.random.Generator(np.random.PCG64(self.seed)).permutation(self.y.shape[1])
        return replace(self, y=self.y[:, order], z=self.z[:, order])
