"""AdaQuant (Hubara et al. 2020, arXiv 2006.10518): train the weights straight through a fixed grid.

    ŵ = s · clamp(round(u), low, high),    ∂ŵ/∂u := s inside the bounds        (straight-through estimator)

Differs from the paper: the scales stay (they belong to the plan); the weight is kept in code units u = w/s and the
objective divided by `unit` (see adaround), so that one learning rate fits every layer; the rate falls to 0 along a
cosine; the result is the best state of every row, never the last one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.rounding.adam import Adam
from quark_onnx.numerics.rounding.learning import Rounded, Watch, falling, learn
from quark_onnx.numerics.rounding.objectives import Objective
from quark_onnx.numerics.rounding.settings import TuningSettings
from quark_onnx.numerics.rounding.weight_grid import WeightGrid, each
from quark_onnx.numerics.weight_pairs import project, repair

F32 = NDArray[np.float32]

GAIN = 1e-3
"""A window whose mean loss is not lower by this part ends the search."""


def adaquant(weight: F32, grid: WeightGrid, objective: Objective, unit: F32, settings: TuningSettings) -> Rounded:
    """Codes within the bounds, in no row worse than rounding to nearest; where pairs have to be safe, they are.

    Args:
        weight: (G, R, K).
        unit: (G, R) or (G, 1) > 0, in units of the objective.
        settings: `learning_rate` is in code steps, for Adam.
    """
    learner = _Straight(weight, grid, np.broadcast_to(unit, grid.scale.shape[:2]), settings)
    return learn(learner, objective, learner.codes, grid.scale, unit, settings)


class _Straight:
    """x (G, R, K): the weight in steps of the scale."""

    whole = True

    def __init__(self, weight: F32, grid: WeightGrid, unit: F32, settings: TuningSettings) -> None:
        self.grid, self.settings = grid, settings
        self.s = each(grid.scale)
        self.x: F32 = weight / self.s
        self.per_code: F32 = (self.s / unit[..., None]).astype(np.float32)
        self.adam = Adam.of(self.x.shape)
        self._confine()

    @property
    def weight(self) -> F32:
        return self.codes * self.s

    def step(self, grad: F32, t: int) -> float:
        grad *= self.per_code
        self.adam.step(self.x, grad, falling(self.settings.learning_rate, 0.0, t / self.settings.num_iterations))
        self._confine()
        return 0.0

    def ends(self, watch: Watch, done: int, window: int) -> bool:
        return watch.stalled(GAIN)

    def _confine(self) -> None:
        """Weights back between the bounds, where the gradient of the clamp would be 0; and their codes."""
        np.clip(self.x, self.grid.low, self.grid.high, out=self.x)
        if self.grid.safe_run:
            self.x = project(self.x, self.grid.safe_run)
        codes = np.rint(self.x)
        self.codes: F32 = repair(codes, self.x, self.grid.safe_run) if self.grid.safe_run else codes
