"""AdaRound (Nagel et al. 2020, arXiv 2004.10568): learn, for every weight, whether to round down or up.

    ŵ = s · clamp(⌊w/s⌋ + h(v), low, high),    h(v) = clamp(σ(v) · (ζ − γ) + γ, 0, 1)             (eq. 22, 23)
    minimize  objective(ŵ) / (100 unit) + λ Σ (1 − |2h − 1|^β),    β high → low after a warm start    (eq. 21, 24)

Differs from the paper: the objective is divided by what ten code steps of an average weight cost, so that λ means the
same in every layer (`unit` = s² · mean diag H is one step); β falls along a cosine; the result is the best rounding
seen, never the last one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.rounding.adam import Adam
from quark_onnx.numerics.rounding.learning import Rounded, Watch, falling, learn
from quark_onnx.numerics.rounding.objectives import Objective
from quark_onnx.numerics.rounding.settings import TuningSettings
from quark_onnx.numerics.rounding.weight_grid import WeightGrid, clip, each, nearest, steps
from quark_onnx.numerics.weight_pairs import repair

F32 = NDArray[np.float32]

ZETA, GAMMA = np.float32(1.1), np.float32(-0.1)

TEN_STEPS = np.float32(100)
"""Cost of ten code steps in units of one. Measured against one step, λ = 0.01 is too weak where inputs are correlated:
half of the roundings stay undecided to the end (resnet20 with 4-bit weights: 20.3 dB at its output instead of 22.0)."""

SETTLED = 1e-2
"""When the rounding term is down to this part of its largest value, no rounding will change any more."""


def adaround(weight: F32, grid: WeightGrid, objective: Objective, unit: F32, settings: TuningSettings) -> Rounded:
    """Codes that are ⌊w/s⌋ or ⌊w/s⌋ + 1, within the bounds, and in no row worse than rounding to nearest.

    Where no pair of neighbours may saturate, what is judged, and returned, has none that does.

    Args:
        weight: (G, R, K).
        unit: (G, R) or (G, 1) > 0, in units of the objective.
        settings: `learning_rate` is that of v, for Adam; `warm_start` the part of the iterations without the rounding
            term; `early_stop` ends also when the latter is next to nothing.
    """
    near = nearest(weight, grid.scale, grid.low, grid.high, grid.safe_run)
    unit = TEN_STEPS * unit
    learner = _UpOrDown(weight, grid, unit, settings)
    return learn(learner, objective, near, grid.scale, unit, settings)


class _UpOrDown:
    """v (G, R, K): positive where a weight is to be rounded up."""

    whole = False

    def __init__(self, weight: F32, grid: WeightGrid, unit: F32, settings: TuningSettings) -> None:
        self.grid, self.settings = grid, settings
        u = steps(weight, grid.scale, grid.low, grid.high, grid.safe_run)
        self.down = np.floor(u)
        self.v, self.s = initial(u - self.down), each(grid.scale)
        self.per_code: F32 = (self.s / unit[..., None]).astype(np.float32)
        self.free = (self.down >= grid.low) & (self.down < grid.high)  # elsewhere both choices clamp to one code
        self.adam, self.cost = Adam.of(self.v.shape), math.inf
        self.start = settings.warm_start * settings.num_iterations
        self.rest = settings.num_iterations - self.start

    @property
    def weight(self) -> F32:
        self.slope, self.h = soften(self.v)
        return clip(self.down + self.h, self.grid.low, self.grid.high) * self.s

    @property
    def codes(self) -> F32:
        codes = clip(self.down + (self.v >= 0), self.grid.low, self.grid.high)
        return repair(codes, self.down + self.h, self.grid.safe_run) if self.grid.safe_run else codes

    def step(self, grad: F32, t: int) -> float:
        grad *= self.per_code
        if warm := t >= self.start:
            beta = falling(*self.settings.beta_range, (t - self.start) / max(1.0, self.rest))
            pull, self.cost = polarise(self.h, beta, self.settings.reg_param)
            grad -= pull
        grad *= self.slope
        grad *= self.free
        self.adam.step(self.v, grad, self.settings.learning_rate)
        return self.cost if warm else 0.0

    def ends(self, watch: Watch, done: int, window: int) -> bool:
        stalled = watch.stalled(compare=done >= self.start + 2 * window)
        return stalled or self.cost <= SETTLED * self.settings.reg_param * self.h.size


def initial(fraction: F32) -> F32:
    """v with h(v) = fraction, which is in [0, 1)."""
    p = (np.clip(fraction, 0.001, 0.999).astype(np.float32) - GAMMA) / (ZETA - GAMMA)
    return np.asarray(-np.log(1 / p - 1), np.float32)


def soften(v: F32) -> tuple[F32, F32]:
    """dh/dv and h."""
    p = np.negative(v)
    np.minimum(p, np.float32(80), out=p)  # e⁸⁸ is the end of float32
    np.exp(p, out=p)
    p += 1
    np.reciprocal(p, out=p)
    h = p * (ZETA - GAMMA)
    h += GAMMA
    slope = 1 - p
    slope *= p
    slope *= ZETA - GAMMA
    slope *= (h > 0) & (h < 1)
    return slope, np.clip(h, 0, 1, out=h)


def polarise(h: F32, beta: float, reg_param: float) -> tuple[F32, float]:
    """Minus the derivative of λ Σ (1 − |2h − 1|^β) by h, and its value."""
    c = 2 * h
    c -= 1
    size = np.abs(c)
    if beta < 1:  # its derivative has no bound at h = 1/2
        np.maximum(size, np.float32(1e-3), out=size)
    power = np.power(size, np.float32(beta - 1))
    cost = reg_param * (h.size - float((power * size).sum()))
    power *= np.float32(2 * beta * reg_param)
    return np.copysign(power, c, out=power), cost
