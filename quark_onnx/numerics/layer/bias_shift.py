"""The bias of a layer whose weight stays as it is rounded: what its outputs are off by on average, taken back.

    b  =  mean (y − Ŵ z)      over positions where the activation function f lets y through

y = W x + b is the float output, Ŵ the weight of the quantized model and z what that model reads. On held-out positions
Σ (f(Ŵ z + b) − f(y))², channels weighted by their gain, says whether the new bias helps. No second moments are needed,
which is what makes fine-tuning expensive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.activation_functions import Activation
from quark_onnx.numerics.layer.integer_bias import LIMIT, OwnGrid
from quark_onnx.numerics.layer.sampling import Layer
from quark_onnx.numerics.matrix_products import product
from quark_onnx.numerics.rounding.moments import mask_of

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Errors:
    """Sums over positions, count and off (G, R), and some of the positions, y and found = Ŵ z (G, n, R).

    off is Σ (y − Ŵ z) where the activation function lets y through, count how many positions these are.
    """

    count: F64
    off: F64
    y: F32
    found: F32
    positions: int

    @classmethod
    def of(cls, layer: Layer, weight: F32, x: F32, z: F32, stride: int) -> Errors:
        """Of x and z (G, n, K); weight (G, R, K) is that of the quantized model. Every `stride`-th position is kept."""
        with np.errstate(over="ignore", invalid="ignore"):  # `finite` looks at the sums
            y = product(x, np.swapaxes(layer.weight, 1, 2)) + layer.bias[:, None]
            found = product(z, np.swapaxes(weight, 1, 2))
            mask = np.ones((1, 1, 1), np.float32) if layer.active is None else mask_of(y, layer.active)
            off = (mask * (y - found)).sum(1, dtype=np.float64)
        count = np.broadcast_to(mask, y.shape).sum(1, dtype=np.float64)
        return cls(count, off, y[:, ::stride].copy(), found[:, ::stride].copy(), y.shape[1])

    def __add__(self, other: Errors) -> Errors:
        y, found = (np.concatenate(pair, 1) for pair in ((self.y, other.y), (self.found, other.found)))
        return Errors(self.count + other.count, self.off + other.off, y, found, self.positions + other.positions)

    @property
    def finite(self) -> bool:
        """Whether there was no NaN, infinity or overflow."""
        return bool(np.isfinite(self.off).all() and np.isfinite(self.y).all() and np.isfinite(self.found).all())

    @property
    def bias(self) -> F64:
        """(G, R): the one with which nothing is off on average."""
        bias: F64 = self.off / self.count
        return bias


class Shifted(NamedTuple):
    """bias (G, R), the given one where the new one does not help; errors on both sides before and after."""

    bias: F32
    accepted: bool
    loss_before: float
    loss_after: float
    held_before: float
    held_after: float


def shift(
    bias: F32,
    train: Errors,
    held: Errors | None,
    activation: Activation,
    gain: F32 | None,
    *,
    steps: F64 | None = None,
    grid: OwnGrid | None = None,
) -> Shifted:
    """The bias that takes back what the layer is off by, if held-out positions gain by it.

    Args:
        bias: (G, R) as it is.
        gain: (G, R) how much the network cares for each row; None: the same for all.
        steps: (G, R) of an int32 bias, which has to fit. grid: of one with 8 or 16 bits.
    """
    judge = train if held is None else held

    def usable(wanted: F64) -> F32:
        fit = wanted if steps is None else np.clip(wanted, -steps * LIMIT, steps * LIMIT)
        return (fit if grid is None else grid.nearest(fit)).astype(np.float32)

    def loss(side: Errors, b: F32) -> float:
        squares = np.square(activation.value(side.found + b[:, None]) - activation.value(side.y)).mean(1)
        total = float((squares if gain is None else squares * gain).sum(dtype=np.float64))
        return total if np.isfinite(total) else float("inf")

    start = bias if grid is None else grid.nearest(bias)
    before = loss(train, start), loss(judge, start)
    new = usable(train.bias)
    if held is not None:  # of all samples, if that serves those held out as well
        every = usable((train + held).bias)
        new = every if loss(judge, every) <= loss(judge, new) else new
    after = loss(train, new), loss(judge, new)
    if after[1] >= before[1]:
        return Shifted(bias, False, before[0], before[0], before[1], before[1])
    return Shifted(new, True, before[0], after[0], before[1], after[1])
