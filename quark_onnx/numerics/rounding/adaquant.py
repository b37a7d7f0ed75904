"""AdaQuant (Hubara et al. 2020, arXiv 2006.10518): train the weights straight through a fixed grid.

    ŵ = s · clamp(round(u), low, high),    ∂ŵ/∂u := s inside the bounds        (straight-through estimator)

Differs from the paper: the scales stay (they belong to the plan); the weight is kept in code units u = w/s and the
objective divided by `unit` (see adaround), so that one learning rate fits every layer; the rate falls to 0 along a
cosine; the result is the best state of every row, never the last one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.rounding.adam import Adam
from quark_onnx.numerics.rounding.early_stop import WINDOWS, Best, Rounded, Watch
from quark_onnx.numerics.rounding.objectives import Objective
from quark_onnx.numerics.rounding.weight_grid import Bound
from quark_onnx.numerics.weight_pairs import project, repair

F32 = NDArray[np.float32]

GAIN = 1e-3
"""A window whose mean loss is not lower by this part ends the search."""


def adaquant(
    weight: F32,
    bias: F32 | None,
    scale: F32,
    objective: Objective,
    low: Bound,
    high: Bound,
    unit: F32,
    *,
    safe_pairs: bool = False,
    num_iterations: int = 1000,
    learning_rate: float = 0.02,
    early_stop: bool = True,
    window: int | None = None,
) -> Rounded:
    """Codes within the bounds, in no row worse than rounding to nearest.

    Args:
        weight: (G, R, K).
        bias: (G, R) to be trained too, and then `objective` takes [weight, bias] (its bias is joint); None: the
            objective takes care of the bias.
        scale: (G, R).
        unit: (G, R) or (G, 1) > 0, in units of the objective.
        safe_pairs: no pair of neighbours may saturate.
        learning_rate: in code steps, for Adam.
        early_stop: end when the loss of the rounded weights, averaged over a window, no longer falls.
        window: iterations between two looks at the state; None: a tenth of them.
    """
    state = _State(weight, bias, scale, low, high, np.broadcast_to(unit, scale.shape), safe_pairs)
    best = Best(objective, state.steps, state.rounded())
    adam, watch, done = Adam.of(state.x.shape), Watch(), 0
    window = window or max(1, num_iterations // WINDOWS)
    for t in range(num_iterations):
        x = state.rounded()
        loss, grad = objective(x * state.steps)
        ends = (t + 1) % window == 0 or t + 1 == num_iterations
        if objective.exact:
            best.take(x, loss)
        elif ends:
            best.judge(x)
        grad *= state.per_step
        adam.step(state.x, grad, learning_rate * 0.5 * (1 + math.cos(math.pi * t / num_iterations)))
        state.confine()
        watch.add(float((loss / unit).sum()))
        done = t + 1
        if ends and watch.stalled(GAIN) and early_stop:
            break
    codes, trained = state.split(best.codes)
    return Rounded(codes, done, best.loss, trained)


class _State:
    """x (G, R, K or K+1): the weight in code steps, and a trained bias in steps of the same cost, √unit."""

    def __init__(
        self, weight: F32, bias: F32 | None, scale: F32, low: Bound, high: Bound, unit: F32, safe_pairs: bool
    ) -> None:
        self.inputs, self.low, self.high, self.safe_pairs = weight.shape[-1], low, high, safe_pairs
        self.steps: F32 = np.repeat(scale[..., None], self.inputs, -1)
        self.x: F32 = weight / self.steps
        if bias is not None:
            of_bias = np.sqrt(unit)[..., None]
            self.steps = np.concatenate([self.steps, of_bias], -1)
            self.x = np.concatenate([self.x, bias[..., None] / of_bias], -1)
        self.per_step: F32 = self.steps / unit[..., None]
        self.confine()

    def rounded(self) -> F32:
        """x with whole weights; a bias stays as it is."""
        x = np.rint(self.x)
        x[..., self.inputs :] = self.x[..., self.inputs :]
        if self.safe_pairs:
            x[..., : self.inputs] = repair(x[..., : self.inputs], self.x[..., : self.inputs])
        return x

    def confine(self) -> None:
        """Weights back between the bounds, where the gradient of the clamp would be 0."""
        weights = self.x[..., : self.inputs]
        np.clip(weights, self.low, self.high, out=weights)
        if self.safe_pairs:
            weights[...] = project(weights)

    def split(self, x: F32) -> tuple[F32, F32 | None]:
        """Codes and trained bias."""
        if x.shape[-1] == self.inputs:
            return x, None
        return np.ascontiguousarray(x[..., : self.inputs]), x[..., -1] * self.steps[..., -1]
