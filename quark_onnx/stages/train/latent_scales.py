"""Scales that are trained: s = s₀ · eˡ, as the format has them, and l is what moves.

    ∂L/∂l = s · ∂L/∂s,   also where s is rounded to a power of two or a float16 number

A step of l changes every scale by the same share, whatever its size, and none can become 0 or negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.number_formats import Format
from quark_onnx.numerics.quantizer import representable

Array = NDArray[Any]

REACH = np.log(8.0)
"""As far as a logarithm may move: a scale eight times as large or small belongs to another tensor."""


@dataclass(frozen=True, eq=False)
class LatentScale:
    """The scale of one group, or of one weight.

    first    (s₀) as the plan has it
    format   says which numbers a scale may be
    trained  whether it moves
    """

    first: Array
    format: Format
    trained: bool

    def start(self) -> Array:
        """l of the plan's scale."""
        return np.zeros(self.first.shape, np.float32)

    def scale(self, log: Array | None) -> Array:
        """The scale, float32, in the shape of the plan's; without l the plan's."""
        if log is None:
            return self.first
        moved = self.first.astype(np.float64) * np.exp(np.clip(log, -REACH, REACH).astype(np.float64))
        nearest = moved * np.sqrt(0.5) if self.format.scale == "pow2" else moved
        return np.asarray(representable(nearest, self.format), np.float32)
