"""A layer to round: scales for its weight, and inputs so correlated that rounding to nearest is far from the best."""

from __future__ import annotations

import numpy as np

from quark_onnx.numerics.activation_functions import Relu
from quark_onnx.numerics.rounding.moments import Moments
from quark_onnx.numerics.rounding.objectives import Objective, Quadratic, Sampled
from quark_onnx.numerics.rounding.weight_grid import PER_CHANNEL, WeightGrid, each, nearest, up_or_down

F32 = np.ndarray


def absmax_scale(weight: F32, high: int, shared: tuple[int, ...]) -> F32:
    """(G, R): the largest |weight| of those that share a scale gets the code `high`; never 0."""
    top = np.abs(weight).max(-1)
    if shared:
        top = np.broadcast_to(top.max(shared, keepdims=True), top.shape)
    return np.asarray(np.maximum(top / np.float32(high), np.float32(1e-12)))


class Problem:
    """One group of r rows and k inputs, weights of so many bits; with a bias if that is asked for.

    Scales are per row, or per block of so many inputs.
    """

    def __init__(
        self, seed: int, *, r: int = 4, k: int = 12, bits: int = 4, biased: bool = False, block: int | None = None
    ) -> None:
        rng = np.random.default_rng(seed)
        mix = rng.standard_normal((k, k)) + 1.5
        self.z = np.maximum(rng.standard_normal((1, 60 * k, k)) @ mix, 0).astype(np.float32)
        self.weight = rng.standard_normal((1, r, k)).astype(np.float32)
        self.bias = (rng.standard_normal((1, r)) if biased else np.zeros((1, r))).astype(np.float32)
        self.y = self.z @ np.swapaxes(self.weight, 1, 2) + self.bias[:, None]
        self.high = 2 ** (bits - 1) - 1
        self.block = block
        parts = [self.weight[..., i : i + (block or k)] for i in range(0, k, block or k)]
        scales = [absmax_scale(part, self.high, PER_CHANNEL) for part in parts]
        self.scale = scales[0] if block is None else np.repeat(np.stack(scales, -1), block, -1)[..., :k]
        self.moments = Moments.of(self.y, self.z)
        self.q = Quadratic.around(self.weight, self.moments)
        self.unit = np.square(each(self.scale)).mean(-1) * self.q.curvature
        self.down, self.up = up_or_down(self.weight, self.scale, -self.high, self.high)

    def grid(self, low: float | None = None, high: float | None = None) -> WeightGrid:
        """The scales and these bounds, or those of the bits."""
        bounds = (-self.high if low is None else low), (self.high if high is None else high)
        return WeightGrid(self.scale, *bounds, PER_CHANNEL, block=self.block)

    def sampled(self, seed: int = 0) -> Sampled:
        """The objective in mini-batches, behind a Relu."""
        return Sampled(self.y, self.z, *self.moments.means(), Relu(), 64, (seed,)).shuffled()

    def nearest(self, low: int | None = None, high: int | None = None) -> F32:
        """Codes rounded to nearest, within these bounds or those of the bits."""
        low, high = (-self.high if low is None else low), (self.high if high is None else high)
        return nearest(self.weight, self.scale, low, high)

    def loss(self, codes: F32, objective: Objective | None = None) -> F32:
        """(G, R), by the quadratic if nothing else is given."""
        return (objective or self.q).loss(codes * each(self.scale))
