"""What every choice of every layer does to the outputs, all else being float: measured once, added up afterwards.

The error that a layer makes of rounded weights is linear in the rounding error: e = layer(x, ŵ − w). Less its mean per
channel, which a corrected bias takes away, it is added to what the float model has there, and the model runs on to its
outputs. The rounding of an activation is followed in the same way, and counts for the layers that read it: for their
sake it is rounded. As long as errors are small beside the signal their powers add up at the outputs, and so does the
divergence of distributions, which is a square of them; what a whole run then shows corrects the scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Plan
from quark_onnx.core.records import Comparison, Measured
from quark_onnx.core.settings.budget import Budget
from quark_onnx.core.settings.range_methods import Ranging
from quark_onnx.core.threads import cores
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted, counted_pairs
from quark_onnx.engine.kept_feeds import Kept, keep
from quark_onnx.engine.runner import Runner, fit
from quark_onnx.graph import Model, Value, io
from quark_onnx.graph.subgraphs import disturbable, linear_part
from quark_onnx.graph.view import constant, is_op, output_names, shape
from quark_onnx.numerics.output_measures import OutputMeasure
from quark_onnx.numerics.quantizer import dequantize, qparams, quantize
from quark_onnx.optimize.layer_choices import Layer, Weighted
from quark_onnx.optimize.layer_neighbours import readers
from quark_onnx.optimize.records import BYTES, WORDS
from quark_onnx.stages.ranges import weight_range

Measure = Literal["kl", "noise"]
Array = NDArray[Any]
Errors = Mapping[str, Array]

SMALL = 0.05
"""Damage up to which errors are small beside the signal."""

WORKERS = 2
"""Samples that run at a time, on a thread each."""

EXTREMES = Ranging("MinMax")


def measure_of(outputs: Mapping[str, Measured], budget: Budget) -> Measure:
    """Divergence where all float outputs hold classes: what matters there is which one leads, and by how much.

    But where the budget is about noise alone, noise counts: a vector that is no distribution looks like classes, too.
    """
    if budget == Budget(min_sqnr=budget.min_sqnr) and budget:
        return "noise"
    floats = [one for one in outputs.values() if one.sqnr is not None]
    return "kl" if floats and all(one.kl is not None for one in floats) else "noise"


def damage_of(outputs: Mapping[str, Measured], measure: Measure) -> float:
    """Of the output that suffers most: nats, or noise / signal; infinite where nothing could be measured."""
    if measure == "kl":
        return max((one.kl for one in outputs.values() if one.kl is not None), default=math.inf)
    return max((10 ** (-one.db / 10) for one in outputs.values() if one.db is not None), default=math.inf)


def layer_damages(
    model: Model,
    plan: Plan,
    layers: Sequence[Layer],
    feeds: Sequence[Feed],
    measure: Measure,
    counted: Counted | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, float]]:
    """By layer, choice → damage at the outputs.

    Args:
        model: the float model that the plan belongs to.
        plan: with scales, of a configuration in 8 bits.
        feeds: some that taught; they are held with all that is between layers, in a file if need be.
        measure: see `damage_of`.
        counted: which positions of the outputs are looked at; None: all.
        tick: called as `tick(done, to do)`.

    Raises:
        DataError: the model fails on a sample.
    """
    owner = {node: layer for layer in layers if BYTES in layer.formats for node in layer.every}
    tensors = readers(model, plan, owner)
    total, done = len(layers) + len(tensors), 0
    with _Walk.begun(model, layers, tensors, feeds, counted) as walk:
        share = {id(layer): 0.0 for layer in layers}
        for tensor, found in tensors.items():
            rounding = damage_of(walk.rounded(tensor, plan).outputs, measure)
            for layer in found:
                share[id(layer)] += rounding / len(found)
            tick(done := done + 1, total)
        damages: list[dict[str, float]] = []
        for layer in layers:
            alone = _by_format(walk, layer, measure)
            also = {BYTES: share[id(layer)], WORDS: share[id(layer)] / 4**8}
            formats = layer.formats.items()
            damages.append({c: also.get(c, 0.0) + (0.0 if f is None else alone[_plain(f)]) for c, f in formats})
            tick(done := done + 1, total)
    return damages


def _by_format(walk: _Walk, layer: Layer, measure: Measure) -> dict[Format, float]:
    """Damage of rounded weights. While it is small it goes with the square of their errors, so that the coarsest grid
    tells of the finer ones.
    """
    plain = dict.fromkeys(_plain(format) for format in layer.formats.values() if format is not None)
    errors = {
        format: sum(float(np.square(_delta(w, format)).sum()) for w in layer.weights.values()) for format in plain
    }
    found: dict[Format, float] = {}
    coarser: Format | None = None
    for format in sorted(plain, key=lambda one: -errors[one]):
        if coarser is not None and found[coarser] <= SMALL:
            found[format] = found[coarser] * errors[format] / errors[coarser]
            continue
        found[format] = damage_of(walk.weights(layer, format).outputs, measure) if errors[format] else 0.0
        coarser = format if errors[format] else coarser
    return found


def _plain(format: Format) -> Format:
    """The grid without the ways of storing it, so that what is equal is measured once."""
    return Format(format.bits, format.signed, format.symmetric, format.axis, format.block, strict=format.strict)


@dataclass(eq=False)
class _Walk:
    """The float model, whose tensors can be disturbed, and what it computes of each feed."""

    end: Runner
    noises: Mapping[str, str]
    zeros: Feed
    taps: Kept
    always: frozenset[str]
    declared: Mapping[str, Sequence[int | None] | None]
    counted: Counted | None
    pool: ThreadPoolExecutor

    @classmethod
    def begun(
        cls,
        model: Model,
        layers: Sequence[Layer],
        activations: Mapping[str, Any],
        feeds: Sequence[Feed],
        counted: Counted | None,
    ) -> _Walk:
        made = [part.node.outputs[0].name or "" for layer in layers for part in layer.parts]
        read = [part.data.name or "" for layer in layers for part in layer.parts]
        given = {value.name for value in model.graph.inputs}
        changed, noises = disturbable(model, list(dict.fromkeys([*made, *activations])))
        outputs = output_names(model)
        wanted = [name for name in dict.fromkeys([*outputs, *made, *read, *activations]) if name not in given]
        exact = Runner(io.with_outputs(changed, wanted), wanted, threads=1)
        zeros = fit({name: np.zeros((), np.float32) for name in noises.values()}, changed)
        taps = keep(feed | dict(zip(wanted, exact(feed | zeros), strict=True)) for feed in feeds)
        declared = {value.name or "": shape(value) for value in model.graph.outputs}
        pool = ThreadPoolExecutor(1 if io.is_heavy(model) else min(WORKERS, cores()))
        always = frozenset([*feeds[0], *outputs])
        return cls(exact.returning(outputs), noises, zeros, taps, always, declared, counted, pool)

    def __enter__(self) -> _Walk:
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown()

    def rounded(self, tensor: str, plan: Plan) -> Comparison:
        """With one activation rounded."""
        q, format = plan.qparams_of(tensor), plan.sites[tensor].format

        def errors(tap: Feed) -> Errors:
            x = tap[tensor]
            return {tensor: dequantize(quantize(x, q, format), q, format) - x}

        return self._followed(errors, [tensor])

    def weights(self, layer: Layer, format: Format) -> Comparison:
        """With the weights of one layer rounded."""
        parts = [(part.node.outputs[0].name or "", _Error.of(part, format)) for part in layer.parts]
        means = {name: self._mean(error) for name, error in parts}
        read = [error.data for _, error in parts]
        return self._followed(lambda tap: {name: error(tap) - means[name] for name, error in parts}, read)

    def _mean(self, error: _Error) -> Array:
        """Of each channel, over samples and positions; 0 where rows are looked up, which no bias follows."""
        if error.axis is None:
            return np.zeros((), np.float32)
        sums, count = np.zeros(1), 0
        for tap in self.taps.only([error.data]):
            rows = np.moveaxis(error(tap), error.axis, -1)
            rows = rows.reshape(-1, rows.shape[-1])
            sums, count = sums + rows.sum(0, dtype=np.float64), count + len(rows)
        mean = (sums / max(count, 1)).astype(np.float32)
        return mean if error.axis == -1 else mean.reshape(-1, *[1] * (-error.axis - 1))

    def _followed(self, errors: Callable[[Feed], Errors], read: Sequence[str]) -> Comparison:
        """The outputs with errors in the middle; read: the tensors that these are made of."""
        taps = self.taps.only(self.always.union(read))

        def run(tap: Feed) -> Sequence[Any]:
            noise = {self.noises[name]: array for name, array in errors(tap).items() if name in self.noises}
            return self.end(tap | self.zeros | noise)

        measures = {name: OutputMeasure(dims) for name, dims in self.declared.items()}
        for tap, found in zip(taps, self.pool.map(run, taps), strict=True):
            for (name, measure), y in zip(measures.items(), found, strict=True):
                for pair in counted_pairs(self.counted, name, tap[name], y, tap):
                    measure.add(*pair)
        return Comparison({name: measure.measured for name, measure in measures.items()}, len(self.taps))


@dataclass(frozen=True, eq=False)
class _Error:
    """The error that a layer makes of one rounded weight."""

    runner: Runner
    data: str
    inputs: tuple[str, str]
    delta: Array
    axis: int | None

    @classmethod
    def of(cls, part: Weighted, format: Format) -> _Error:
        model = linear_part(part.node, part.index)
        names = [value.name or "" for value in model.graph.inputs]
        axis = None if is_op(part.node, "Gather") else _channels(part)
        runner = Runner(model, threads=1)
        return cls(
            runner, part.data.name or "", (names[1 - part.index], names[part.index]), _delta(part.weight, format), axis
        )

    def __call__(self, tap: Feed) -> Array:
        found: Array = self.runner({self.inputs[0]: tap[self.data], self.inputs[1]: self.delta})[0]
        return found


def _delta(weight: Value, format: Format) -> Array:
    """The rounding error of a weight."""
    w = constant(weight)
    assert w is not None
    q = qparams(*weight_range(w, format, EXTREMES), format)
    error: Array = (dequantize(quantize(w, q, format), q, format) - w).astype(w.dtype)
    return error


def _channels(part: Weighted) -> int:
    """The axis of the outputs' channels, from the end."""
    if is_op(part.node, "MatMul"):
        return -1 if part.index else -2
    weight = shape(part.weight) or ()
    return -1 if is_op(part.node, "Gemm") else 1 - len(weight)
