"""Adam (Kingma & Ba 2014, arXiv 1412.6980, algorithm 1) on float32 arrays, with its state in the open."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


@dataclass(eq=False)
class Adam:
    """First and second moment of the gradient, and the steps done. In place: it runs thousands of times per layer."""

    mean: F32
    square: F32
    scratch: F32
    steps: int = 0

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Adam:
        """Nothing done yet, for an x of this shape."""
        return cls(np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    @np.errstate(over="ignore")
    def step(self, x: F32, grad: F32, rate: float) -> None:
        """x −= rate · m̂ / (√v̂ + ε); changes x and uses grad up. Where g² is beyond float32, x stays."""
        self.steps += 1
        np.multiply(grad, np.float32(1 - BETA1), out=self.scratch)
        self.mean *= np.float32(BETA1)
        self.mean += self.scratch
        grad *= grad
        grad *= np.float32(1 - BETA2)
        self.square *= np.float32(BETA2)
        self.square += grad
        # the two bias corrections are numbers: they go into ε and the rate instead of through the arrays
        unbias = (1 - BETA2**self.steps) ** 0.5
        np.sqrt(self.square, out=self.scratch)
        self.scratch += np.float32(EPSILON * unbias)
        np.divide(self.mean, self.scratch, out=self.scratch)
        self.scratch *= np.float32(rate * unbias / (1 - BETA1**self.steps))
        x -= self.scratch
