"""Learn the ranges of one layer together with its weight: the output error, straight through all its quantizers.

    ŷ = f(Ŵ ẑ + b),   Ŵ = fake(W),   ẑ = fake(z),       Σ over rows of mean (ŷ − f(y))²  →  min

over W and b, and the scales (and zero points) of both quantizers, and of one in front of f or behind it, with Adam on
random mini-batches of kept positions (see `learned_step_size`). It differs from training in that the target is the
float layer's output; the rate falls to 0 along a cosine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.activation_functions import Activation
from quark_onnx.numerics.layer.held_out_split import Kept
from quark_onnx.numerics.layer.learned_step_size import GROWTH, LearnedRange, Quantizer, Variable, balance, fake, normal
from quark_onnx.numerics.matrix_products import product
from quark_onnx.numerics.rounding.learning import falling
from quark_onnx.numerics.rounding.weight_grid import Bound, nearest

F32 = NDArray[np.float32]

CHUNK = 1024
"""Positions that are judged at a time."""

BUDGET = 2**24
"""Numbers that the positions of a layer may have, all together."""


@dataclass(frozen=True, eq=False)
class LayerState:
    """A layer and its quantizers.

    weight   (G, R, K) float; scale (G, R), equal along the axes `shared`; low, high: codes less the zero point
    bias     (G, R)
    reading  the quantizer of its input, None: it has none
    writing  that of its output, in front of the activation function or, with `behind`, behind it
    safe_run  as that of `WeightGrid`
    """

    weight: F32
    scale: F32
    low: Bound
    high: Bound
    shared: tuple[int, ...]
    bias: F32
    activation: Activation
    reading: Quantizer | None = None
    writing: Quantizer | None = None
    behind: bool = False
    safe_run: int = 0

    @property
    def codes(self) -> F32:
        """(G, R, K) whole numbers."""
        return nearest(self.weight, self.scale, self.low, self.high, self.safe_run)

    def losses(self, kept: Kept) -> F32:
        """(G, R) mean (ŷ − f(y))² over the positions."""
        weight = self.codes * self.scale[..., None]
        total = np.zeros(self.bias.shape, np.float64)
        for start in range(0, kept.y.shape[1], CHUNK):
            y, z = (side[:, start : start + CHUNK] for side in kept)
            error = Forward(self, weight, z).result - self.activation.value(y)
            total += np.square(error).sum(1, dtype=np.float64)
        return np.asarray(total / kept.y.shape[1], np.float32)


class Forward:
    """The layer's `result` (G, n, R) at the positions z (G, n, K) with a quantized weight, and the way back."""

    def __init__(self, state: LayerState, weight: F32, z: F32) -> None:
        self.state = state
        self.read = None if state.reading is None else state.reading(z)
        self.z = z if self.read is None else self.read.quantized
        self.linear = product(self.z, np.swapaxes(weight, 1, 2))
        self.linear += state.bias[:, None]
        before = self.linear
        if state.writing is not None and not state.behind:
            self.written = state.writing(before)
            before = self.written.quantized
        self.result = state.activation.value(before)
        if state.writing is not None and state.behind:
            self.written = state.writing(self.result)
            self.result = self.written.quantized

    def back(self, upstream: F32) -> tuple[F32, float, float]:
        """The gradient by the linear output, and by ln s and z of the writing quantizer (0 if there is none)."""
        slope = self.state.activation.slope
        if self.state.writing is None:
            return upstream * slope(self.linear), 0.0, 0.0
        if self.state.behind:
            passed, *others = self.written.sums(upstream)
            return passed * slope(self.linear), others[0], others[1]
        # clipped but not rounded: a value that is rounded to the kink of a Relu is not on it
        return self.written.sums(upstream * slope(np.where(self.written.inside, self.linear, self.written.quantized)))


class Gradients(NamedTuple):
    """Of Σ over rows of the mean squared error: by weight (G, R, K), ln s of every row (G, R) and bias (G, R), and by
    ln s and z of the two other quantizers (0 where there is none)."""

    weight: F32
    log_scale: F32
    bias: F32
    reading: tuple[float, float]
    writing: tuple[float, float]


def gradients(state: LayerState, kept: Kept) -> Gradients:
    """The gradients on some positions, straight through all quantizers."""
    weight = fake(state.weight, state.scale[..., None], state.low, state.high)
    if state.safe_run:
        weight = replace(weight, quantized=state.codes * state.scale[..., None])
    forward = Forward(state, weight.quantized, kept.z)
    error = forward.result - state.activation.value(kept.y)
    error *= np.float32(2 / error.shape[1])
    grad, *writing = forward.back(error)
    slopes = weight.slopes(product(np.swapaxes(grad, 1, 2), forward.z))
    reading = (0.0, 0.0)
    if forward.read is not None:
        _, *found = forward.read.sums(product(grad, weight.quantized))
        reading = (found[0], found[1])
    by_scale = np.asarray(slopes.log_scale.sum(-1))
    return Gradients(slopes.value, by_scale, np.asarray(grad.sum(1)), reading, (writing[0], writing[1]))


@dataclass(frozen=True)
class Free:
    """What may be learned; the rest stays. The zero points only with their scales."""

    weight: bool = True
    scale: bool = True
    bias: bool = True
    reading: bool = True
    reading_zero: bool = True
    writing: bool = True
    writing_zero: bool = True


@dataclass(frozen=True)
class Course:
    """How to learn: steps; the first rate, in codes of the weight and in parts of a range; positions per step; seed."""

    num_iterations: int = 400
    learning_rate: float = 0.01
    batch: int = 256
    seed: tuple[int, ...] = (0,)


def learn_layer(start: LayerState, kept: Kept, free: Free, course: Course) -> LayerState:
    """The state at the end; kept: the positions to learn from, in random order."""
    learner = _Learner(start, kept, free, course.learning_rate)
    rng = np.random.Generator(np.random.PCG64(course.seed))
    for t in range(course.num_iterations):
        first = int(rng.integers(0, max(1, kept.y.shape[1] - course.batch + 1)))
        share = falling(1.0, 0.0, t / course.num_iterations)
        learner.step(Kept(*(side[:, first : first + course.batch] for side in kept)), share)
    return learner.state()


class _Learner:
    """The state while it is learned: weights in codes of the first scale, scales as logarithms of their growth, biases
    in parts of the row's output error."""

    def __init__(self, start: LayerState, kept: Kept, free: Free, rate: float) -> None:
        losses = start.losses(kept)
        self.noise = np.sqrt(np.maximum(losses, max(1e-8 * float(losses.max()), 1e-30)))
        self.start, self.free = start, free
        self.unit = start.scale[..., None]
        self.weight = Variable(start.weight / self.unit, rate)
        self.growth = Variable(np.zeros_like(self._shared(start.scale)), rate * balance(float(np.max(start.high))))
        self.bias = Variable(np.zeros_like(start.bias), rate)
        self.reading = self.writing = None
        if start.reading is not None and free.reading:
            self.reading = LearnedRange(start.reading, free.reading_zero, rate)
        if start.writing is not None and free.writing:
            self.writing = LearnedRange(start.writing, free.writing_zero, rate)

    def _shared(self, values: F32) -> F32:
        """Summed over the rows that share a scale."""
        return np.asarray(values.sum(self.start.shared, keepdims=True)) if self.start.shared else values

    def state(self) -> LayerState:
        """The layer as it would be now; what is not free is as it was, to the bit."""
        start, free = self.start, self.free
        return replace(
            start,
            weight=self.weight.value * self.unit if free.weight else start.weight,
            scale=normal(start.scale * np.exp(self.growth.value)) if free.scale else start.scale,
            bias=start.bias + self.bias.value * self.noise if free.bias else start.bias,
            reading=start.reading if self.reading is None else self.reading.quantizer(),
            writing=start.writing if self.writing is None else self.writing.quantizer(),
        )

    def step(self, kept: Kept, share: float) -> None:
        """One step on a mini-batch; share: of the first rates."""
        free, found = self.free, gradients(self.state(), kept)
        if self.writing is not None:
            self.writing.step(*found.writing, share)
        if self.reading is not None:
            self.reading.step(*found.reading, share)
        if free.bias:
            self.bias.step(found.bias * self.noise, share)
        if free.weight:
            self.weight.step(found.weight * self.unit, share)
        if free.scale:
            self.growth.step(self._shared(found.log_scale), share)
            np.clip(self.growth.value, -GROWTH, GROWTH, out=self.growth.value)


def bytes_of(shape: tuple[int, int, int]) -> int:
    """About how much memory `learn_layer` takes for a weight (G, R, K): to skip a layer that is too large."""
    return 4 * (3 * BUDGET + 14 * math.prod(shape))
