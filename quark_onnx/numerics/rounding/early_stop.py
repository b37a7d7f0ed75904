"""The best rounding seen so far, and when the search for a better one ends."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.rounding.objectives import Objective

F32 = NDArray[np.float32]

WINDOWS = 10
"""By default the iterations are averaged, and the state is judged, this many times."""


class Rounded(NamedTuple):
    """codes (G, R, K) whole float32; iterations done; loss (G, R) of the codes; bias (G, R) if one was trained."""

    codes: F32
    iterations: int
    loss: F32
    bias: F32 | None = None


class Best:
    """The codes with the lowest loss of every row so far. s: what a code is worth, (G, R, K) or (G, R, 1)."""

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
