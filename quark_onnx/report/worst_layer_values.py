"""Values of the worst layers: histograms of activations with their ranges, and how far channels of weights reach."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.number_formats import TYPES, Format
from quark_onnx.engine.activation_grid import Grid
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.observe import observe
from quark_onnx.engine.qdq_pieces import Piece, Stored
from quark_onnx.graph import Model
from quark_onnx.graph.view import constant
from quark_onnx.numerics.ranges.calibration_statistics import Statistics
from quark_onnx.numerics.ranges.distribution import Distribution
from quark_onnx.numerics.ranges.mean_squared_error import min_mse, squared_error
from quark_onnx.report.model_report import Histogram, LayerError, Weight

BINS = 96


def histograms(
    base: Model, parts: Iterable[Piece], errors: Sequence[LayerError], feeds: Sequence[Feed]
) -> tuple[Histogram, ...]:
    """What the feeds show of the tensors of some layers, with the range of each; those without a single scale left out.

    Args:
        base: the float model that the quantized one was made from.
        parts: the pieces of the quantized model.
    """
    grids = {piece.tensor: piece.grid for piece in parts if piece.grid is not None}
    chosen = {e.tensor: e.node for e in errors if e.tensor in grids}
    if not chosen:
        return ()
    statistics = observe(base, feeds, list(chosen), lambda done: None)
    return tuple(_histogram(name, node, grids[name], statistics[name]) for name, node in chosen.items())


def _histogram(tensor: str, node: str, chosen: Grid, statistics: Statistics) -> Histogram:
    distribution = Distribution.of(statistics)
    lo, hi = chosen.ends
    inside, beyond = (
        float(part) for part in distribution.errors(chosen.scale, chosen.zero_point, chosen.lo, chosen.hi)
    )
    total = inside + beyond
    start, end = min(distribution.lo, lo), max(distribution.hi, hi)
    width = (end - start) / BINS or 1.0
    counts = distribution.linear(start, width, BINS) if distribution.count else np.zeros(BINS)
    slack = 1e-6 * (hi - lo)
    within = float(distribution.below(hi + slack, "right") - distribution.below(lo - slack))
    return Histogram(
        tensor,
        node,
        chosen.dtype if chosen.bits == TYPES[chosen.dtype][0] else f"{chosen.bits} bits in {chosen.dtype}",
        (distribution.lo, distribution.hi),
        (lo, hi),
        1 - within / distribution.count if distribution.count else 0.0,
        beyond / total if total else 0.0,
        _gain(distribution, chosen, total),
        start,
        width,
        tuple(round(float(count)) for count in counts),
    )


def _gain(distribution: Distribution, chosen: Grid, error: float) -> float:
    """dB by which the squared error of the values falls with the range where it is least; 60 at most."""
    if not error:
        return 0.0
    signed, pow2 = TYPES[chosen.dtype][1], math.frexp(chosen.scale)[0] == 0.5
    symmetric = signed and chosen.zero_point == 0
    format = Format(chosen.bits, signed, symmetric, scale="pow2" if pow2 else "float")
    lo, hi = (np.array([end]) for end in min_mse(distribution, format))
    least = float(squared_error(distribution, format, lo, hi)[0])
    return max(0.0, 10 * math.log10(error / max(least, 1e-6 * error)))


def weights(base: Model, parts: Iterable[Piece], tensors: Sequence[str]) -> tuple[Weight, ...]:
    """The integer weights of the layers that make these tensors, in the order of the pieces."""
    found = []
    for piece in parts:
        for stored in piece.weights if piece.tensor in tensors else ():
            array = constant(base.graph.initializers.get(stored.name))
            if array is not None:
                found.append(_weight(piece.node, stored, array))
    return tuple(found)


def _weight(node: str, stored: Stored, array: NDArray[Any]) -> Weight:
    known = Weight(stored.name, node, stored.dtype, stored.scales, None)
    if array.ndim < 2 or not array.any():
        return known
    reach = np.abs(np.moveaxis(array, stored.axis, 0)).reshape(array.shape[stored.axis], -1).max(1).astype(np.float64)
    own = float(np.square(reach / reach.max()).mean()) if stored.scales == 1 else 1.0
    return replace(known, reach=(float(reach.min()), float(np.median(reach)), float(reach.max())), own=own)
