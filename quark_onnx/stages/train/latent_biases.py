"""Biases that are trained: floats, added as the exported model has them, straight through whatever rounds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.layer.integer_bias import LIMIT, OwnGrid, scale, stored

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class LatentBias:
    """A bias of one layer.

    first    as the plan has it
    factors  (activation, weight) whose scales make its own; None: it has none
    own      the grid of one that has 8 or 16 bits; None: it has none
    unit     how far a step at learning rate 1 moves it: about what its layer's output varies by
    trained  whether it moves
    """

    first: Array
    factors: tuple[str, str] | None
    own: OwnGrid | None
    unit: float
    trained: bool

    def kept(self, value: Array, scales: tuple[Array, Array] | None) -> Array:
        """The value as the plan gets it: int32 codes of it leave room for what is added to them."""
        if scales is None:
            return value
        most = LIMIT * scale(*scales).astype(np.float64)
        return (
            np.clip(value, -most.min(), most.min()).astype(np.float32) if value.size == 1 else self._each(value, most)
        )

    def _each(self, value: Array, most: Array) -> Array:
        ends = np.resize(most, value.size).reshape(value.shape)  # repeated, where groups share the scales of a weight
        return np.clip(value, -ends, ends).astype(np.float32)

    def added(self, value: Array, scales: tuple[Array, Array] | None) -> Array:
        """What the exported model adds."""
        if scales is not None:
            codes, size = stored(self.kept(value, scales), *scales)
            whole = np.asarray(codes.astype(np.float32) * size)
            return whole.reshape(value.shape) if whole.size == value.size else whole
        return value if self.own is None else self.own.nearest(value)

    def gradient(self, slope: Array) -> Array:
        """Of the value, from that of what is added."""
        if self.first.size == 1 and slope.size > 1:
            return np.full(self.first.shape, slope.sum(dtype=np.float64), np.float32)
        return slope.reshape(self.first.shape)
