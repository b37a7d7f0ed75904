"""Learning a rounding by gradients: the loop that AdaRound and AdaQuant share, and the best rounding on the way."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.rounding.objectives import Objective
from quark_onnx.numerics.rounding.settings import TuningSettings
from quark_onnx.numerics.rounding.weight_grid import each

F32 = NDArray[np.float32]

WINDOWS = 10
"""By default the iterations are averaged, and the state is judged, this many times."""


class Rounded(NamedTuple):
    """codes (G, R, K) whole float32; iterations done; loss (G, R) of the codes."""

    codes: F32
    iterations: int
    loss: F32


class Learner(Protocol):
    """What is learned, (G, R, K), and how a gradient moves it."""

    @property
    def whole(self) -> bool:
        """Whether `weight` is that of `codes`; else it is on its way to one."""

    @property
    def weight(self) -> F32:
        """What the objective is asked about, in real units."""

    @property
    def codes(self) -> F32:
        """The rounding that it stands for now."""

    def step(self, grad: F32, t: int) -> float:
        """Move against the gradient by `weight`, which is used up, in iteration t; what its own terms cost."""

    def ends(self, watch: Watch, done: int, window: int) -> bool:
        """At the end of a window: whether nothing more is to be expected."""


def learn(
    learner: Learner, objective: Objective, start: F32, scale: F32, unit: F32, settings: TuningSettings
) -> Rounded:
    """The best rounding on the way, row by row; it begins with `start`, (G, R, K) codes.

    Args:
        scale: (G, R), or (G, R, K) with blocks.
        unit: (G, R) or (G, 1) > 0: what losses are divided by before they are added up.
        settings: `early_stop` ends the iterations when the loss, averaged over a window, no longer falls.
    """
    best, watch, done = _Best(objective, each(scale), start), Watch(), 0
    seen = learner.whole and objective.exact  # every loss is that of a rounding, over all data
    iterations = settings.num_iterations
    window = settings.window or max(1, iterations // WINDOWS)
    for t in range(iterations):
        loss, grad = objective(learner.weight)
        if seen:
            best.take(learner.codes, loss)
        cost = learner.step(grad, t)
        watch.add(float((loss / unit).sum()) + cost)
        done = t + 1
        if done % window == 0 or done == iterations:
            if not seen:
                best.judge(learner.codes)
            if learner.ends(watch, done, window) and settings.early_stop:
                break
    return Rounded(best.codes, done, best.loss)


class _Best:
    """The codes with the lowest loss of every row so far. s: what a code is worth, (G, R, 1 or K)."""

    def __init__(self, objective: Objective, s: F32, codes: F32) -> None:
        self.objective, self.s, self.codes = objective, s, codes
        self.loss = objective.loss(codes * s)

    def judge(self, codes: F32) -> None:
        """Take over the rows that are better, by the loss over all data."""
        self.take(codes, self.objective.loss(codes * self.s))

    def take(self, codes: F32, loss: F32) -> None:
        """Take over the rows whose loss is lower."""
        better = loss < self.loss
        self.codes = np.where(better[..., None], codes, self.codes)
        self.loss = np.where(better, loss, self.loss)


class Watch:
    """Mean loss of the present and of the last window of iterations."""

    def __init__(self) -> None:
        self.last, self.total, self.count = math.inf, 0.0, 0

    def add(self, loss: float) -> None:
        self.total += loss
        self.count += 1

    def stalled(self, gain: float = 0.0, compare: bool = True) -> bool:
        """Begin a new window; whether the one that ends here was no better than the one before it, by a part `gain`."""
        mean = self.total / self.count
        stalled = compare and mean >= self.last * (1 - gain)
        self.last, self.total, self.count = mean, 0.0, 0
        return stalled


def falling(first: float, last: float, progress: float) -> float:
    """From the first to the last along a cosine while progress goes from 0 to 1."""
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * progress))
