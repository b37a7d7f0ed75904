"""Seconds that a layer is expected to take: what has to be multiplied and looked at, at the rates of a core of 2023.

For a weight (G, R, K), s positions in all samples, n of them drawn and k kept, and t iterations:

    products   n G K (K + R)         the moments              values   n G (2 K + R)   taken from activations
               t G R K min(K, WIDE)  iterations                        t G R K         of the optimizer
               SWEEPS G R K²         scales and descent
               JUDGED k G R K        candidates
               2 s G R K             the layer itself, on both sides

On two nets of convolutions that is within 15 % of what layers take, 40 % at worst. Other machines are slower or faster,
which tuning finds out on the way; what counts is how layers compare.
"""

from __future__ import annotations

import math

from quark_onnx.core.settings.fast_finetune import FastFinetune, Nearest
from quark_onnx.engine.layers import Unit
from quark_onnx.graph.view import shape
from quark_onnx.stages.finetune.layer_statistics import KEPT

BASE = 0.05
"""Seconds of the smallest layer."""

PRODUCTS, VALUES = 4e10, 9e7
"""Per second."""

SWEEPS, JUDGED = 8, 24
"""How often a weight is searched, and judged."""

WIDE = 1536
"""Inputs above which an iteration costs no more: it goes over positions instead of moments."""


def expected_seconds(rows: tuple[int, int, int], positions: int | None, options: FastFinetune, bits: int) -> float:
    """Seconds that a layer takes.

    Args:
        rows: (G, R, K) of its weight, which has so many bits.
        positions: of all samples, see `positions_of`; None: not known.
    """
    groups, outputs, inputs = rows
    weights = groups * outputs * inputs
    most = options.positions if groups == 1 else options.positions // 4
    seen = most if positions is None else positions
    drawn = min(most, seen)
    values, products = drawn * groups * (2 * inputs + outputs), 2 * seen * weights
    if isinstance(options, Nearest) and not options.scale_search:  # the bias alone
        products += drawn * weights
    else:
        steps = 0 if isinstance(options, Nearest) else options.steps(bits) or 0
        values += steps * weights
        products += drawn * groups * inputs * (inputs + outputs) + steps * weights * min(inputs, WIDE)
        products += weights * (SWEEPS * inputs + JUDGED * min(drawn, KEPT))
    return BASE + products / PRODUCTS + values / VALUES


def positions_of(unit: Unit, rows: tuple[int, int, int], samples: int) -> int | None:
    """Output positions of a layer in so many samples; None where its size is not known."""
    dims = shape(unit.node.outputs[0])
    if dims is None or None in dims[1:]:
        return None
    return samples * max(1, math.prod(dim or 1 for dim in dims[1:]) // (rows[0] * rows[1]))
