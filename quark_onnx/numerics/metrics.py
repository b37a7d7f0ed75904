"""How far a quantized array is from the float one."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


class Sqnr:
    """Signal to quantization noise ratio, summed over as many arrays as are added: 10·log10(Σ x² / Σ (x − y)²)."""

    def __init__(self) -> None:
        self.signal = 0.0
        self.noise = 0.0

    def add(self, reference: NDArray[np.generic], other: NDArray[np.generic]) -> None:
        """Count one pair of arrays of equal shape. Positions where both are the same non-finite value are skipped."""
        x, y = reference.astype(np.float64), other.astype(np.float64)
        finite = np.isfinite(x) & np.isfinite(y)
        if not finite.all():
            if np.any(~finite & ~((x == y) | (np.isnan(x) & np.isnan(y)))):
                self.noise = math.inf
            x, y = x[finite], y[finite]
        self.signal += float(np.square(x).sum())
        self.noise += float(np.square(x - y).sum())

    @property
    def db(self) -> float:
        """The ratio in dB; inf when there is no noise, −inf when there is noise and no signal."""
        if self.noise == 0:
            return math.inf
        if self.signal == 0 or math.isinf(self.noise):
            return -math.inf
        return 10 * math.log10(self.signal / self.noise)
