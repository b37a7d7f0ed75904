"""What a layer may become, and how good that is: the error of its output behind its activation function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.activation_functions import Activation
from quark_onnx.numerics.layer.held_out_split import LayerData, Part
from quark_onnx.numerics.layer.integer_bias import LIMIT, OwnGrid
from quark_onnx.numerics.rounding.moments import ActiveMeans, Sums, with_bias
from quark_onnx.numerics.rounding.objectives import Sampled
from quark_onnx.numerics.rounding.weight_grid import each

F32 = NDArray[np.float32]


class Candidate(NamedTuple):
    """codes (G, R, K) whole float32, scale (G, R) or, with blocks, (G, R, K), bias (G, R)."""

    name: str
    codes: F32
    scale: F32
    bias: F32

    @property
    def weight(self) -> F32:
        """(G, R, K) dequantized."""
        return self.codes * each(self.scale)


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores candidates on the training and the held-out samples.

    gain (G, R) weighs the rows; bias_step (None: bias is float) is the input's scale: bias codes count in
    bias_step · weight scale and have to fit into int32.
    """

    data: LayerData
    activation: Activation
    gain: F32
    bias_step: float | None = None
    bias_grid: OwnGrid | None = None

    @classmethod
    def of(
        cls,
        data: LayerData,
        activation: Activation,
        gain: F32 | None,
        bias_step: float | None,
        bias_grid: OwnGrid | None = None,
    ) -> Scorer:
        """With the gain made 1 on average; 1 for every row where there is none, or it is 0 in all."""
        shape = data.train.sums.yy.shape
        mean = 0.0 if gain is None else float(gain.mean())
        even = np.ones(shape, np.float32)
        weights = (gain / mean).astype(np.float32) if gain is not None and mean else even
        return cls(data, activation, weights, bias_step, bias_grid)

    @property
    def held(self) -> Part:
        """The samples that decide: the held-out ones, or if there are none, those that there are."""
        return self.data.train if self.data.held is None else self.data.held

    def losses(self, part: Part, candidate: Candidate) -> F32:
        """(G, R) mean (f(ŷ) − f(y))² over the positions kept; without f over all, if none were kept."""
        if part.kept is None:
            v = with_bias(candidate.weight, candidate.bias)
            return (part.moments.loss(v) / part.moments.count).astype(np.float32)
        return Sampled(*part.kept, candidate.bias, None, self.activation).loss(candidate.weight)

    def score(self, part: Part, candidate: Candidate) -> float:
        """Σ over rows of gain · loss; inf where that is not a number."""
        total = float((self.losses(part, candidate) * self.gain).sum(dtype=np.float64))
        return total if np.isfinite(total) else float("inf")

    def signal(self) -> float:
        """Σ over rows of gain · mean f(y)² on the held-out samples."""
        part = self.held
        if part.kept is None:
            squares = (part.moments.yy / part.moments.count).astype(np.float32)
        else:
            squares = np.square(self.activation.value(part.kept.y)).mean(1)
        return float((squares * self.gain).sum(dtype=np.float64))

    def with_bias(self, name: str, codes: F32, scale: F32, fitter: Sums | ActiveMeans) -> Candidate:
        """The candidate whose bias is the best for its weight, of those that its type holds."""
        bias: NDArray[np.floating] = fitter.bias(codes * each(scale))
        if self.bias_step is not None:
            limit = scale.astype(np.float64) * self.bias_step * LIMIT
            bias = np.clip(bias, -limit, limit)
        if self.bias_grid is not None:
            bias = self.bias_grid.nearest(bias)
        return Candidate(name, codes, scale, bias.astype(np.float32))

    def refitted(self, candidate: Candidate) -> Candidate:
        """The candidate with its bias fitted to all samples, if that serves the held-out ones as well."""
        if self.data.held is None:
            return candidate
        fitter = _sum(self.data.train.fitter, self.data.held.fitter)
        again = self.with_bias(candidate.name, candidate.codes, candidate.scale, fitter)
        return again if self.score(self.held, again) <= self.score(self.held, candidate) else candidate


def _sum(a: Sums | ActiveMeans, b: Sums | ActiveMeans) -> Sums | ActiveMeans:
    if isinstance(a, Sums) and isinstance(b, Sums):
        return a + b
    assert isinstance(a, ActiveMeans) and isinstance(b, ActiveMeans)  # parts of a layer have the same fields
    return a + b
