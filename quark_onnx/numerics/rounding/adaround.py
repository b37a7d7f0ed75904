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
from quark_onnx.numerics.rounding.early_stop import WINDOWS, Best, Rounded, Watch
from quark_onnx.numerics.rounding.objectives import Objective
from quark_onnx.numerics.rounding.weight_grid import Bound, clip, nearest, steps
from quark_onnx.numerics.weight_pairs import repair

F32 = NDArray[np.float32]

ZETA, GAMMA = np.float32(1.1), np.float32(-0.1)

TEN_STEPS = np.float32(100)
"""Cost of ten code steps in units of one. Measured against one step, λ = 0.01 is too weak where inputs are correlated:
half of the roundings stay undecided to the end (resnet20 with 4-bit weights: 20.3 dB at its output instead of 22.0)."""

SETTLED = 1e-2
"""When the rounding term is down to this part of its largest value, no rounding will change any more."""


def adaround(
    weight: F32,
    scale: F32,
    objective: Objective,
    low: Bound,
    high: Bound,
    unit: F32,
    *,
    safe_pairs: bool = False,
    num_iterations: int = 1000,
    learning_rate: float = 0.1,
    early_stop: bool = True,
    window: int | None = None,
    reg_param: float = 0.01,
    beta_range: tuple[float, float] = (20.0, 2.0),
    warm_start: float = 0.2,
) -> Rounded:
    """Codes that are ⌊w/s⌋ or ⌊w/s⌋ + 1, within the bounds, and in no row worse than rounding to nearest.

    Args:
        weight: (G, R, K).
        scale: (G, R).
        unit: (G, R) or (G, 1) > 0, in units of the objective.
        safe_pairs: no pair of neighbours may saturate; what is judged, and returned, has none that does.
        learning_rate: of v, for Adam.
        early_stop: end when the loss with its rounding term, averaged over a window, no longer falls, or the latter
            is next to nothing.
        window: iterations between two looks at the state; None: a tenth of them.
        warm_start: part of the iterations without the rounding term.
    """
    s = scale[..., None]
    u = steps(weight, scale, low, high, safe_pairs)
    down = np.floor(u)
    unit = TEN_STEPS * unit
    v, per_code = initial(u - down), (s / unit[..., None]).astype(np.float32)
    free = (down >= low) & (down < high)  # elsewhere both choices clamp to one code
    best = Best(objective, s, nearest(weight, scale, low, high, safe_pairs))
    adam, watch, done, cost = Adam.of(v.shape), Watch(), 0, math.inf
    start, window = warm_start * num_iterations, window or max(1, num_iterations // WINDOWS)
    for t in range(num_iterations):
        slope, h = soften(v)
        loss, grad = objective(clip(down + h, low, high) * s)
        grad *= per_code
        total = float((loss / unit).sum())
        if t >= start:
            pull, cost = polarise(h, beta_at((t - start) / max(1.0, num_iterations - start), beta_range), reg_param)
            grad -= pull
            total += cost
        grad *= slope
        grad *= free
        adam.step(v, grad, learning_rate)
        watch.add(total)
        done = t + 1
        if done % window == 0 or done == num_iterations:
            codes = clip(down + (v >= 0), low, high)
            best.judge(repair(codes, down + h) if safe_pairs else codes)
            stalled = watch.stalled(compare=done >= start + 2 * window) or cost <= SETTLED * reg_param * h.size
            if early_stop and stalled:
                break
    return Rounded(best.codes, done, best.loss)


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


def beta_at(progress: float, beta_range: tuple[float, float]) -> float:
    """From high to low along a cosine while progress goes from 0 to 1."""
    high, low = beta_range
    return low + 0.5 * (high - low) * (1 + math.cos(math.pi * progress))
