"""Optimizers, as functions of arrays: what they remember is passed in and comes out.

    adam  m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,  θ ← θ − η · m̂ / (√v̂ + ε)        (Kingma & Ba 2015)
    sgd   m ← β m + g,  θ ← θ − η · m

The size of gradients has no say in Adam's steps, so that those of scales need no scaling of their own (the 1 / √(N · Q)
of learned step size quantization). Weight decay is taken off beside them: θ ← θ · (1 − η · decay).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Mapping[str, Array]

SECOND, TINY = 0.99, 1e-12
"""β₂: of trainings of some hundreds of steps, 0.999 is all of them. ε: gradients of a mean over samples are small."""


@dataclass(frozen=True, eq=False)
class Momenta:
    """What an optimizer remembers. steps: that were made; first, second: m and v by array."""

    steps: int = 0
    first: Arrays = field(default_factory=dict)
    second: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Optimizer:
    """kind: "adam" or "sgd"; momentum: β₁, or β."""

    kind: str
    momentum: float

    def step(
        self, state: Arrays, slopes: Arrays, rates: Mapping[str, Any], decays: Mapping[str, float], past: Momenta
    ) -> tuple[dict[str, Array], Momenta]:
        """The next state, and what is remembered.

        Args:
            slopes: gradients of some arrays of the state; the others stay.
            rates: η of each array, a number or one per element.
            decays: shares that are taken off at η = 1.
        """
        count = past.steps + 1
        after, first, second = dict(state), dict(past.first), dict(past.second)
        for key, slope in slopes.items():
            if self.kind == "adam":
                move, first[key], second[key] = self._adam(slope, past, key, count)
            else:
                move = first[key] = slope + np.float32(self.momentum) * past.first.get(key, np.float32(0))
            kept = state[key] * np.float32(1 - rates[key] * decays[key]) if decays.get(key) else state[key]
            after[key] = np.asarray(kept - np.asarray(rates[key], np.float32) * move, np.float32)
        return after, Momenta(count, first, second)

    def _adam(self, slope: Array, past: Momenta, key: str, count: int) -> tuple[Array, Array, Array]:
        zero = np.float32(0)
        first = np.asarray(slope + np.float32(self.momentum) * (past.first.get(key, zero) - slope), np.float32)
        squared = np.square(slope)
        second = np.asarray(squared + np.float32(SECOND) * (past.second.get(key, zero) - squared), np.float32)
        mean, power = 1 - self.momentum**count, 1 - SECOND**count
        return first / np.float32(mean) / (np.sqrt(second / np.float32(power)) + np.float32(TINY)), first, second
