"""Seconds that a layer is expected to take, by what is done for it, each at a rate of its own.

For a weight (G, R, K), s positions in all samples, n of them drawn, and t iterations:

    RUN     s G R                  the model, on both sides       TAKEN    n G (2 K + R)            of activations
    PASSED  s G R K                the layer itself               SUMMED   n G K (K + R)            moments
    TRIED   G R K                  scales and candidates          LEARNED  t G R K min(K, WIDE)     iterations
    SWEPT   G R K²                 descent

The rates were fitted to two nets of convolutions, at 8 and 4 bits and with iterations; a typical layer takes 20 % more
or less. Other machines are slower or faster, which tuning finds out on the way: what counts is how layers compare.
"""

from __future__ import annotations

import math

from quark_onnx.core.settings.fast_finetune import FastFinetune, Nearest
from quark_onnx.engine.layers import Unit
from quark_onnx.graph.view import shape
from quark_onnx.numerics.rounding.coordinate_descent import FEW
from quark_onnx.numerics.rounding.methods import WIDE
from quark_onnx.stages.finetune.layer_statistics import learnable, most_positions

BASE = 0.015
"""Seconds of the smallest layer."""

RUN, TAKEN, TRIED = 4.5e-9, 1e-8, 1.3e-6
"""Seconds per number."""

PASSED, SUMMED, SWEPT, LEARNED = 2.5e-11, 1.5e-11, 8e-10, 9e-11
"""Seconds per product."""


def expected_seconds(rows: tuple[int, int, int], positions: int | None, options: FastFinetune, bits: int) -> float:
    """Seconds that a layer takes.

    Args:
        rows: (G, R, K) of its weight, which has so many bits.
        positions: of all samples, see `positions_of`; None: not known.
    """
    groups, outputs, inputs = rows
    weights, most = groups * outputs * inputs, most_positions(rows, options.positions)
    seen = most if positions is None else positions
    drawn = min(most, seen)
    seconds = BASE + passing_seconds(rows, seen)
    seconds += TAKEN * drawn * groups * (2 * inputs + outputs)
    if isinstance(options, Nearest) and not options.scale_search:  # the bias alone
        return seconds + PASSED * drawn * weights
    seconds += TRIED * weights
    if not learnable(options, bits, drawn, inputs):
        return seconds
    seconds += SUMMED * drawn * groups * inputs * (inputs + outputs) + SWEPT * weights * inputs
    return seconds + LEARNED * _steps(options, bits, inputs) * weights * min(inputs, WIDE)


def passing_seconds(rows: tuple[int, int, int], positions: int) -> float:
    """Seconds that the samples take to pass through a layer and what follows it, on both sides."""
    groups, outputs, inputs = rows
    return RUN * positions * groups * outputs + PASSED * positions * groups * outputs * inputs


def _steps(options: FastFinetune, bits: int, inputs: int) -> int:
    """Iterations, if none end early."""
    return 0 if isinstance(options, Nearest) or (options.quick and inputs <= FEW) else options.steps(bits)


def positions_of(unit: Unit, rows: tuple[int, int, int], samples: int) -> int | None:
    """Output positions of a layer in so many samples; None where its size is not known."""
    dims = shape(unit.node.outputs[0])
    if dims is None or None in dims[1:]:
        return None
    return samples * max(1, math.prod(dim or 1 for dim in dims[1:]) // (rows[0] * rows[1]))
